"""What the author of a reward sees of an exception in it: the line of their own file, whatever has called it."""

import json
import logging
import sys

import pytest

from trimtab.pipelines.planning import schema
from trimtab.rewards import RewardFailure, failure_of, outcomes

PROMPTS, COMPLETIONS = ["p", "q"], ["a", "b"]
SOURCE = """
def look_up(row):
    return row["answer"]            # line 3

def plain(prompts, completions, **columns):
    return [look_up({}) for _ in completions]

async def waiting(prompts, completions, **columns):
    return [look_up({}) for _ in completions]

class Built:
    def __call__(self, prompts, completions, **columns):
        return [look_up({}) for _ in completions]

def reward_func(queries, prompts, labels, **kwargs):
    return look_up({})

def compute_score(data_source, solution_str, ground_truth, extra_info):
    return look_up({})

def secret(prompts, completions, **columns):
    raise KeyError("hf_abcdefghijklmnop")
"""


@pytest.fixture
def reward(tmp_path, monkeypatch):
    """Makes a reward of a block, with the author's file in the current folder."""
    (tmp_path / "authors.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("TRIMTAB_TRACEBACK", raising=False)
    return schema.load_reward


WAYS = {
    "plain": {"kind": "authors.plain"},
    "async": {"kind": "authors.waiting"},
    "class": {"kind": "authors.Built"},
    "trl": {"kind": "trl_function", "path": "authors.py:plain"},
    "trl async": {"kind": "trl_function", "path": "authors.py:waiting"},
    "openrlhf": {"kind": "openrlhf_function", "path": "authors.py:reward_func"},
    "verl": {"kind": "verl_function", "path": "authors.py:compute_score", "ground_truth": "answer"},
    "composite": {"kind": "composite", "rewards": {"part": {"kind": "authors.plain"}}},
    "ensemble": {
        "kind": "ensemble",
        "rewards": {"first": {"kind": "authors.plain"}, "second": {"kind": "length", "target": 2}},
    },
}


@pytest.mark.parametrize("block", WAYS.values(), ids=WAYS)
def test_the_failure_names_the_line_of_the_authors_file(reward, block):
    for outcome in outcomes(reward(block), PROMPTS, COMPLETIONS, answer=["a", "b"]):
        assert isinstance(outcome, RewardFailure)
        assert "KeyError: 'answer'" in outcome.reason
        assert "authors.py:3, in look_up" in outcome.reason
        assert isinstance(outcome.__cause__, KeyError)


def test_the_whole_traceback_is_there_on_request(reward, monkeypatch, caplog):
    monkeypatch.setenv("TRIMTAB_TRACEBACK", "1")
    with caplog.at_level(logging.ERROR, logger="trimtab.rewards"):
        outcomes(reward({"kind": "authors.plain"}), PROMPTS, COMPLETIONS)
        outcomes(reward({"kind": "authors.secret"}), PROMPTS, COMPLETIONS)
    assert "in plain" in caplog.text
    assert 'return row["answer"]' in caplog.text
    assert "hf_abcdefghijklmnop" not in caplog.text


def test_an_exception_of_a_library_alone_names_no_line():
    with pytest.raises(json.JSONDecodeError) as raised:
        json.loads("{")
    raised.value.__traceback__ = raised.value.__traceback__.tb_next  # without the line of this test
    assert failure_of(raised.value).reason == "JSONDecodeError: " + str(raised.value)


def test_what_shipped_rewards_say_to_people_stays_as_it_is(reward):
    (failure, _) = outcomes(reward({"kind": "trl_function", "path": "authors.py:plain"}), PROMPTS, COMPLETIONS)
    assert "authors.py" in failure.reason
    block = {"kind": "verl_function", "path": "authors.py:compute_score"}
    (failure, _) = outcomes(reward(block), PROMPTS, COMPLETIONS)
    assert failure.reason.startswith("ValueError: verl_function: the data has no column 'ground_truth'")
    assert "authors.py:" not in failure.reason.partition("column")[2]


async def leaving(prompts, completions, **columns):
    sys.exit(0)


async def interrupting(prompts, completions, **columns):
    raise KeyboardInterrupt


@pytest.mark.parametrize("reward", [leaving, interrupting, lambda prompts, completions, **columns: sys.exit(0)])
def test_a_reward_that_ends_the_process_has_failed_and_the_next_call_has_an_answer(reward):
    (failure,) = outcomes(reward, ["p"], ["c"])
    assert isinstance(failure, RewardFailure)
    assert "test_tracebacks.py:" in failure.reason
    assert "it called sys.exit(0)" in failure.reason or "KeyboardInterrupt" in failure.reason
    assert outcomes(answering, ["p"], ["c"]) == [1.0]


async def answering(prompts, completions, **columns):
    return [1.0]
