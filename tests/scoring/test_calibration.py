"""Thresholds in standard deviations: of scores that are in them already, and of what a step above has scored."""

import math

import numpy as np
import pytest
from constrained_runs import REWARDS, constrained
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe

from trimtab.pipelines.scoring import calibration
from trimtab.pipelines.shrinking.miniature import Miniature

BRIEF = REWARDS["brief"]


class Step:
    """A step with nothing above it."""

    path = ("stages", "constrained")


NORMALIZED = {"kind": "reward_model", "path": "scorer", "normalize": True}


def test_of_scores_in_standard_deviations_it_is_z():
    assert calibration.threshold("helpful", {**NORMALIZED, "threshold": {"z": -0.5}}, Step()) == -0.5
    assert calibration.threshold("helpful", {**NORMALIZED, "threshold": -1.5}, Step()) == -1.5
    assert calibration.threshold("helpful", NORMALIZED, Step()) is None


def test_a_shrunk_reward_from_outside_is_held_at_z_itself(tmp_path):
    block = {**NORMALIZED, "path": "org/llama-judge", "threshold": {"z": 0.5}}
    outside = Miniature(tmp_path, frozenset()).reward(block)
    assert "normalize" not in outside
    assert outside["threshold"] == 0.5
    inside = Miniature(tmp_path, frozenset({"helpful"})).reward({**block, "path": "$helpful"})
    assert inside["threshold"] == {"z": 0.5}


def scored_by(rewards, model, prompts):
    return {
        "sample": {
            "model": {"model_name_or_path": model},
            "prompts": prompts,
            "num_generations": 4,
            "generate": {"max_new_tokens": 8},
        },
        "score": {"completions": "$sample", "rewards": rewards},
    }


def without_threshold(block):
    return {key: value for key, value in block.items() if key != "threshold"}


def test_a_run_holds_a_reward_relative_to_what_the_start_says(model, prompts, tmp_path, capsys):
    rewards = {"brief": {**BRIEF, "threshold": {"z": -0.5, "of": "$score"}}}
    stages = scored_by({"brief": without_threshold(BRIEF)}, model, prompts)
    steps = run_recipe(tmp_path, stages | constrained(model, prompts, rewards=rewards, train={"max_steps": 2}))
    scores = [row["scores"]["brief"] for row in rows_of(steps["score"])]
    expected = np.mean(scores) - 0.5 * np.std(scores)
    assert len(set(scores)) > 1
    assert metrics_of(steps["constrained"])["thresholds/brief"] == pytest.approx(expected)
    assert f"brief: z -0.5 is a threshold of {expected:.4g}" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "threshold", "message"), [
    ("brief", {"z": 0.5}, "stages.constrained.rewards.brief.threshold: `z` is relative to a calibration: name"),
    ("brief", {"z": 0.5, "of": "$score"}, "rewards.brief.threshold.of: score has no reward 'brief'"),
    ("other", {"z": 0.5, "of": "$score"}, "score scores 'other' with other keys, and so in another unit"),
    ("brief", {"z": 0.5, "of": "scored.jsonl"}, "threshold.of: expected a step above that scores, such as $score"),
    ("brief", {"z": 0.5, "off": "$score"}, "threshold.off: unknown key for Calibrated, did you mean 'of'?"),
    ("brief", {"of": "$score"}, "rewards.brief.threshold.z: required key is missing"),
    ("brief", {"z": math.inf}, "`z` is a number of standard deviations, got inf"),
])  # fmt: skip
def test_mistakes_are_named_before_anything_is_sampled(name, threshold, message, model, prompts, tmp_path, capsys):
    scored = {"short": without_threshold(BRIEF), "other": {**without_threshold(BRIEF), "target": 6}}
    stages = scored_by(scored, model, prompts)
    rewards = {name: {**BRIEF, "threshold": threshold}}
    assert message in refused(tmp_path, stages | constrained(model, prompts, rewards=rewards), capsys)
