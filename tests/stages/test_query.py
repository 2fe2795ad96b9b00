"""Which pairs are asked about: by disagreement, by a posterior on a reward model's features, and at random."""

from itertools import product

import numpy as np
import pytest
import torch
from outputs import metrics_of, rows_of
from run_steps import refused, run_recipe
from short_trainings import write_rows
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from trimtab.pipelines.algorithms.queries import Posterior
from trimtab.pipelines.planning import schema

WORDS = ["a", "b", "a b", "b a", "a a", "b b"]


def answered(prompts=6, answers=3, **scores):
    """Completions of chat prompts; `scores` are functions of their numbers."""
    return [
        {
            "prompt": [{"role": "user", "content": f"say {WORDS[prompt % 6]} {prompt}"}],
            "completion": [{"role": "assistant", "content": f"{WORDS[number]} {prompt}"}],
            "prompt_index": prompt,
            "sample_index": number,
            "scores": {name: told(prompt, number) for name, told in scores.items()},
        }
        for prompt, number in product(range(prompts), range(answers))
    ]


@pytest.fixture(scope="module")
def scorer(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scorer")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_pretrained(model, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return {"kind": "reward_model", "path": str(folder)}


def run(tmp_path, **options):
    return run_recipe(tmp_path, {"query": options}, wandb=False)["query"]


def test_disagreement_asks_where_the_members_differ(tmp_path):
    scores = {"one": lambda prompt, number: float(number), "two": lambda prompt, number: float(number * (1 + prompt))}
    data = write_rows(tmp_path / "scored.jsonl", answered(answers=2, **scores))
    step = run(tmp_path, completions=data, budget=2, rule="disagreement")
    rows = rows_of(step)
    assert [row["uncertainty"] for row in rows] == [5, 4]
    assert [row["prompt"][0]["content"][-1] for row in rows] == ["5", "4"]
    assert all(len(row["completions"]) == 2 for row in rows)
    assert metrics_of(step) == {"pairs": 6, "asked": 2, "uncertainty/all": 2.5, "uncertainty/asked": 4.5}


def test_thompson_lets_a_members_best_meet_the_policy_before(tmp_path):
    scores = {"one": lambda prompt, number: float(number), "two": lambda prompt, number: float(number)}
    data = write_rows(tmp_path / "scored.jsonl", answered(**scores))
    before = [{**row, "completion": [{"role": "assistant", "content": "before"}]} for row in answered(2, 1)]
    common = {"completions": data, "budget": 9, "rule": "random", "meet": "thompson"}
    rows = rows_of(run(tmp_path, **common, before=write_rows(tmp_path / "before.jsonl", before)))
    met = {tuple(turn[0]["content"] for turn in row["completions"]) for row in rows}
    assert met == {("a b 0", "before"), ("a b 1", "before"), *((f"a b {n}", f"b {n}") for n in range(2, 6))}


def test_the_posterior_asks_for_the_most_uncertain_and_not_twice_for_the_same(tmp_path, scorer):
    pairs = [
        {"prompt": row["prompt"], "chosen": row["completion"], "rejected": other["completion"]}
        for row, other in zip(answered(answers=1), answered(answers=2)[1::2], strict=True)
    ]
    same = write_rows(tmp_path / "pairs.jsonl", pairs + pairs)
    step = run(tmp_path, completions=same, budget=6, features=scorer)
    asked = [row["prompt"][0]["content"] for row in rows_of(step)]
    assert len(set(asked)) == 6, "nobody is asked the same twice"
    assert set(rows_of(step)[0]) == {"prompt", "chosen", "rejected", "uncertainty"}
    assert metrics_of(step)["pairs"] == 6

    reward = schema.load_reward(scorer)
    features = [
        np.array(reward.features([row["prompt"] for row in pairs], [row[name] for row in pairs]))
        for name in ("chosen", "rejected")
    ]
    units = np.concatenate(features).std(0) * np.sqrt(features[0].shape[1])
    spread = Posterior(len(units)).spread((features[0] - features[1]) / units)
    widest = max(row["uncertainty"] for row in rows_of(step))
    assert widest == pytest.approx(spread.max(), rel=1e-4)
    assert rows_of(step)[0]["uncertainty"] == widest

    known = run(tmp_path, completions=same, budget=6, features=scorer, labelled=same)
    assert metrics_of(known)["uncertainty/all"] < metrics_of(step)["uncertainty/all"], "labels take uncertainty away"
    few = run(tmp_path, completions=same, budget=12, features=scorer, least=0.999 * widest)
    assert 1 <= metrics_of(few)["asked"] < 6


def test_thompson_by_draws_of_the_posterior_and_random_are_reproducible(tmp_path, scorer):
    data = write_rows(tmp_path / "answered.jsonl", answered())
    common = {"completions": data, "budget": 4, "features": scorer, "meet": "thompson"}
    first, again = (
        rows_of(run(tmp_path / name, **common)) for name in ("one", "two") if (tmp_path / name).mkdir() is None
    )
    assert first == again
    assert all(row["completions"][0] != row["completions"][1] for row in first)
    drawn = run(tmp_path, completions=data, budget=100, rule="random")
    assert metrics_of(drawn)["asked"] == 6, "one pair of each prompt"


def test_what_cannot_be_asked_is_told(tmp_path, capsys):
    data = write_rows(tmp_path / "answered.jsonl", answered(one=lambda *_: 1.0))
    unscored = write_rows(tmp_path / "unscored.jsonl", [{"prompt": "p", "completion": "c", "prompt_index": 0}])

    def told(**options):
        return refused(tmp_path, {"query": {"completions": data, "budget": 3, **options}}, capsys)

    assert "query.features: name the reward whose features the head reads" in told()
    brief = {"kind": "length", "target": 3}
    assert "query.features.kind: a reward of kind 'length' has no features: take a `reward_model`" in told(
        features=brief
    )
    assert "query.budget: must be above 0, got 0" in told(budget=0, rule="random")
    assert "query.least: is for `rule: posterior`, and the rule is random" in told(rule="random", least=0.1)
    assert "query.before: is whom `meet: thompson` meets" in told(rule="random", before=data)
    assert "one reward agrees with itself: score by several" in told(rule="disagreement")
    assert "no scores by 'on', did you mean 'one'? (but one)" in told(rule="disagreement", members=["on"])
    assert "has no column 'scores'" in told(completions=unscored, rule="disagreement")
    assert "no prompt has two different answers" in told(completions=unscored, rule="random")
