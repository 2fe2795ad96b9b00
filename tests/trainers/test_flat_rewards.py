"""What rewards tell of a prompt's completions, in numbers that are known."""

import io
import math
import sys
from collections import defaultdict
from types import SimpleNamespace

import torch

from trimtab.pipelines.trainers import flat_rewards
from trimtab.pipelines.trainers.rewarded_rollouts import RewardedRollouts

NAN = math.nan


def test_shares_of_groups_and_completions():
    a = [1, 1, 2, 3, NAN, NAN]  # told apart in the second of three groups
    b = [NAN, 5, 0.1, 0.1, 0, -1]  # in the third
    shares = flat_rewards.shares(torch.tensor([a, b]).T, ["a", "b"], 2)
    expected = {"a/abstained": 2 / 6, "a/flat": 2 / 3, "b/abstained": 1 / 6, "b/flat": 2 / 3}
    assert shares == {f"rewards/{name}": share for name, share in expected.items()}


def row(mean, std=0.0, flat=1.0):
    return {"rewards/a/mean": mean, "rewards/a/std": std, "rewards/a/flat": flat, "rewards/a/abstained": 0.0}


def test_one_group_that_was_told_apart_is_enough():
    assert flat_rewards.why([row(1.0), row(1.0, 0.1, flat=0.9)], ["a"], across_prompts=False) is None
    assert flat_rewards.why([], ["a"], across_prompts=False) is None
    assert flat_rewards.why([row(1.0), row(1.0)], ["a"], across_prompts=True)
    assert flat_rewards.why([row(1.0), row(2.0)], ["a"], across_prompts=True) is None


def test_a_warning_comes_at_once_and_once_more():
    rollouts = flat_rewards.FlatRollouts(["a"])
    said = [rollouts.warning({"rewards/a/flat": flat}) for flat in [1, 0.5, *[1] * 12]]
    assert [index for index, words in enumerate(said) if words] == [0, 2, 11]


def test_a_warning_stands_at_once_in_a_log_that_is_a_file(monkeypatch):
    """A log that is followed shows it while it can still be acted on, and not when a buffer is full."""
    log = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(log))
    subject = SimpleNamespace(reward_func_names=["a"], flat_rollouts=flat_rewards.FlatRollouts(["a"]),
                              _group_size=lambda: 2, _metrics={"train": defaultdict(list)},
                              accelerator=SimpleNamespace(is_main_process=True),
                              state=SimpleNamespace(global_step=7))  # fmt: skip
    RewardedRollouts._log_flat(subject, torch.ones(4, 1))
    assert log.getvalue().startswith(b"    warning: step 7: ")
    assert subject._metrics["train"]["rewards/a/flat"] == [1.0]
