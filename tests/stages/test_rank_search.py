"""Layers between two models, ranked by what a reward says of their completions, and a search that is killed."""

import json
import shutil

import pytest
import torch
from outputs import logits, metrics_of
from run_steps import refused, run_recipe
from short_trainings import BRIEF, say, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.running import runner
from trimtab.pipelines.scoring.policy_worth import PolicyWorth


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    """The model, and one whose layers were moved."""
    folder = tmp_path_factory.mktemp("trained")
    moved = AutoModelForCausalLM.from_pretrained(model)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            if "layers" in name:
                weight += 0.3 * weight.std() * torch.randn_like(weight)
    moved.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


def stage(model, trained, prompts, **options):
    return {
        "kind": "rank_search",
        "model": {"model_name_or_path": trained},
        "base": model,
        "prompts": prompts,
        "rewards": {"brief": BRIEF},
        "reward": "brief",
        "rounds": 2,
        "points": 3,
        "ranked": 2,
        "line": 2,
        "generate": {"max_new_tokens": 5},
        **options,
    }


def weights(folder):
    return dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())


def test_the_artifact_lies_where_the_scales_say(model, trained, tmp_path):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(6))
    block = stage(model, trained, prompts, eval_prompts=prompts)
    step = run_recipe(tmp_path, {"search": block, "control": {**block, "method": "random"}})["search"]
    metrics = metrics_of(step)
    assert metrics["asked"] == 2 * (3 + 2 + 1)
    assert {"gain/mean", "gain/stderr", "reward/best", "distance"} <= set(metrics)
    scales = json.loads((step.output / "scales.json").read_text())
    assert list(scales) == ["0", "1"], "what no training has moved is not searched"
    base, end, made = weights(model), weights(trained), weights(step.output)
    for name, weight in made.items():
        scale = next((value for layer, value in scales.items() if f"layers.{layer}." in name), 0.0)
        torch.testing.assert_close(weight, base[name] + scale * (end[name] - base[name]))
    logged = [row["reward/best"] for row in tracking.read(step.dir / "metrics.jsonl") if "reward/best" in row]
    assert len(logged) == 2
    assert logits(step.output).isfinite().all()


def test_a_search_that_was_killed_asks_nothing_again(model, trained, tmp_path, monkeypatch):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(6))
    step = run_recipe(tmp_path, {"search": stage(model, trained, prompts)})["search"]
    scales = (step.output / "scales.json").read_text()
    asked = step.dir / "ranks.jsonl"
    whole = asked.read_text()
    assert whole.count("\n") == 4
    (step.dir / "done.json").unlink()
    shutil.rmtree(step.output)
    asked.write_text(whole[:-3])  # torn in its last line
    calls = []
    mean = PolicyWorth.mean
    monkeypatch.setattr(PolicyWorth, "mean", lambda *given: calls.append(given) or mean(*given))
    path = str(tmp_path / "recipe.yaml")
    assert runner.train(path) == 0
    assert len(calls) == 3, "the last line search alone"
    assert (Recipe.load(path).steps[0].output / "scales.json").read_text() == scales
    assert asked.read_text() == whole


def test_what_cannot_be_searched_is_told(model, trained, tmp_path, capsys):
    prompts = write_rows(tmp_path / "prompts.jsonl", say(3))

    def told(**options):
        return refused(tmp_path, {"search": stage(model, trained, prompts, **options)}, capsys)

    assert "search.ranked: must be at most `points`, 3, got 4" in told(ranked=4)
    assert "search.rounds: must be at least 1, got 0" in told(rounds=0)
    assert "search.mu: must be above 0, got 0" in told(mu=0)
    assert "search.engine: the policy changes at every point" in told(engine="vllm")
    assert "search.reward: no reward 'brif' in the scores, did you mean 'brief'?" in told(reward="brif")
    assert "search.base: " in told(base=trained)
    assert "itself: nothing lies between them" in told(base=trained)
