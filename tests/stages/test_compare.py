"""Two policies side by side, whose numbers are computed by hand."""

import json
import math

import pytest
from outputs import metrics_of
from run_steps import run_recipe
from short_trainings import write_rows

from trimtab.pipelines.algorithms.statistics import wilson
from trimtab.pipelines.reporting import by_prompt

ONE = [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]  # the scores of the two completions of each prompt
TWO = [[1.0, 0.0], [1.0, 1.0], [0.0, None]]


def rows(scores_of_prompts, word):
    """Completions of 2 and 4 words."""
    return [
        {"prompt": f"prompt {index}", "completion": " ".join([word] * (2 + 2 * number)), "prompt_index": index,
         "sample_index": number, "completion_ids": [1] * (2 + 2 * number), "truncated": number == 1 and index == 0,
         "scores": {"right": score}}
        for index, scores in enumerate(scores_of_prompts)
        for number, score in enumerate(scores)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def step(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    scored = {
        "one": write_rows(folder / "one.jsonl", rows(ONE, "a")),
        "two": write_rows(folder / "two.jsonl", rows(TWO, "bb")),
    }
    return run_recipe(folder, {"compare": {"scored": scored, "baseline": "one"}})["compare"]


@pytest.fixture(scope="module")
def policies(step):
    return json.loads((step.output / "evaluation.json").read_text())["policies"]


def test_means_are_over_prompts(step, policies):
    """Of prompts' means 0, 1/2, 1/2 and 1/2, 1, 0."""
    one, two = (policies[name]["rewards"]["right"] for name in ("one", "two"))
    assert (one["mean"], one["stderr"]) == pytest.approx((1 / 3, 1 / 6))
    assert (two["mean"], two["stderr"]) == pytest.approx((1 / 2, math.sqrt(1 / 12)))
    assert (one["n"], two["n"]) == (6, 5)
    assert (one["abstained"], two["abstained"]) == pytest.approx((0, 1 / 6))
    assert metrics_of(step)["two/right/mean"] == pytest.approx(1 / 2)
    assert sorted(by_prompt.read(step.output)["two/right/mean"].values()) == [0, 0.5, 1]


def test_the_difference_is_the_policys_less_the_baselines_paired_by_prompt(policies):
    """1/2, 1/2 and -1/2 by prompt; unpaired, the error would be the same as a third of a reward's range."""
    gap = policies["two"]["difference"]["right"]
    assert gap["mean"] == pytest.approx(1 / 6)
    assert gap["stderr"] == pytest.approx(1 / 3)
    assert "difference" not in policies["one"]


def test_wins_have_the_error_of_the_prompts_shares(policies):
    """Of 3/4, 3/4 and 1/4: a completion without a score meets nobody."""
    wins = policies["two"]["win_rate"]["right"]
    assert (wins["rate"], wins["stderr"]) == pytest.approx((7 / 12, 1 / 6))
    assert (wins["low"], wins["high"]) == pytest.approx(wilson(7 / 12, 8.75))
    assert 0 < wins["equal_length"]["low"] < wins["equal_length"]["rate"] < wins["equal_length"]["high"] < 1


def test_texts_are_measured_as_they_are(policies):
    for name in ("one", "two"):
        assert policies[name]["length"] == pytest.approx({"mean": 3, "stderr": 0})
        assert policies[name]["truncated"] == pytest.approx(1 / 6)
        assert policies[name]["distinct_1"] == pytest.approx(1 / 18)
        assert policies[name]["kl"] is None


def test_a_person_reads_the_same(step):
    text = (step.output / "summary.txt").read_text()
    assert "3 prompts x 2" in text
    assert "0.500 +- 0.289" in text
    assert "0.58 [" in text
    assert "two - one, right: +0.167 +- 0.333 (+0.5 standard errors); at equal length it wins 0.6" in text
