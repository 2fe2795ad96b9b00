"""An evaluation in words: who is better, on what, by how many errors, and at what cost."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from trimtab.pipelines.reporting import plane, verdict


def policy(mean, stderr, *, kl=1.0, length=10.0):
    gold = {"mean": mean, "stderr": stderr}
    difference = {"gold": gold, "brief": {"mean": -0.5, "stderr": 0.1}}
    return {"difference": difference, "rewards": {"gold": gold}, "kl": {"mean": kl}, "length": {"mean": length}}


def evaluation(**policies):
    base = {**policy(0.0, 0.1, kl=0.0, length=20), "difference": {}}
    return {"policies": {"sft": base, **policies}, "baseline": "sft", "rewards": ["gold", "brief"]}


def test_the_best_is_named_with_what_it_won_lost_and_cost():
    said = verdict.words(evaluation(dpo=policy(0.5, 0.1), apo=policy(1.0, 0.1, kl=3.0, length=25)))
    assert said[0] == "apo is the best on gold, the first reward."
    assert said[1] == (
        "apo is better on gold by 1.00 ± 0.10 (+10.0 s.e.); worse on brief by 0.50 ± 0.10 (−5.0 s.e.) than sft, "
        "at KL 3 nats and +25% tokens."
    )
    assert said[2].startswith("dpo is better on gold by 0.50 ± 0.10")


def test_what_the_errors_do_not_tell_apart_is_not_called_better():
    said = verdict.words(evaluation(dpo=policy(0.95, 0.1), apo=policy(1.0, 0.1)))
    assert said[0] == "apo is ahead on gold, the first reward, and not clearly apart from dpo."
    said = verdict.words(evaluation(dpo=policy(0.1, 0.1)))
    assert said[0] == "No policy is clearly better than sft on gold, the first reward."
    assert "no different on gold" in said[1]


def test_without_a_difference_nothing_is_said():
    assert verdict.words(evaluation()) == []
    assert verdict.words({"policies": {}, "baseline": None, "rewards": []}) == []


def record(reached):
    rows = [{"train/rewards/coverage/mean": value} for value in reached]
    options = {"rewards": {"coverage": {"kind": "reward_model", "threshold": 1.0}, "gold": {"kind": "gold"}}}
    return {"options": options, "metrics": {"lambda/coverage": 0.2}, "rows": rows, "output": Path()}


def test_a_threshold_is_met_or_missed_in_the_last_fifth():
    (row,) = verdict.thresholds(record([0.0] * 8 + [1.5, 0.7]))
    assert (row["reward"], row["reached"], row["multiplier"]) == ("coverage", 1.1, 0.2)
    assert round(row["gap"], 3) == 0.1
    assert verdict.thresholds(record([])) == []


def test_prompts_on_which_policies_differ_come_first():
    def sample(prompt, *scores):
        return {"prompt": prompt, "policies": {str(i): {"scores": {"gold": score}} for i, score in enumerate(scores)}}

    samples = [sample("same", 1, 1), sample("far", 0, 5), sample("none", None, None), sample("near", 1, 2)]
    assert [found["prompt"] for found in verdict.most_different(samples, "gold")] == ["far", "near", "same", "none"]


def test_words_that_are_new_are_marked():
    pieces = verdict.marked("The nurses are very kind.", "The nurses are kind.")
    assert pieces == [(False, "The nurses are "), (True, "very "), (False, "kind.")]
    assert verdict.marked("", "x") == []


def test_the_plane_has_a_point_for_each_policy_and_escapes_names():
    drawn = plane.draw(evaluation(**{"<b>": policy(0.5, 0.1)})["policies"], "gold")
    assert drawn.count("<circle") == 2
    assert "&lt;b&gt;" in drawn
    assert "<b>" not in drawn
    assert plane.draw(evaluation()["policies"], "gold") == ""


def test_points_that_lie_together_have_labels_that_do_not_and_the_plane_says_where_no_kl_is():
    alike = {name: {"rewards": {"gold": {"mean": 1.0, "stderr": 0.1}}, "kl": {"mean": kl}}
             for name, kl in (("start", 0.0), ("near", 0.0002), ("back", -0.0003), ("far", 0.0061))}  # fmt: skip
    drawn = plane.draw(alike, "gold")
    found = re.findall(r'<text x="(.+?)" y="(.+?)".*?>(.*?)</text>', drawn)
    texts = {said: (float(x), float(y)) for x, y, said in found}
    heights = sorted(texts[name][1] for name in ("start", "near", "back"))
    assert min(after - before for before, after in pairwise(heights)) >= plane.LINE
    assert texts["far"][1] == heights[0], "which is far enough away"
    assert texts["back"][0] < texts["start"][0] == pytest.approx(texts["0"][0] + 8, abs=0.11)
    assert "0.0061" in texts
