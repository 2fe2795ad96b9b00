"""The stages `proxy_points` and `surface`: thresholds that are found by pushing each reward alone, and then held."""

import json

import pytest
from constrained_runs import TRAIN
from run_steps import run_recipe, write_recipe
from short_trainings import write_rows

from trimtab.pipelines.algorithms import surface
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("proxy_points")


@pytest.fixture(scope="module")
def recipe(model, folder):
    rows = [{"prompt": [{"role": "user", "content": f"say a b {i}"}]} for i in range(10)]
    prompts = write_rows(folder / "prompts.jsonl", rows)
    rewards = {
        "brief": {"kind": "length", "target": 5, "unit": "characters"},
        "as": {"kind": "pattern", "regex": "a", "count": True},
    }
    common = {"model": {"model_name_or_path": model}, "data": prompts}
    return {
        "proxy_points": {
            **common,
            "rewards": rewards,
            "metric": {"kind": "pattern", "regex": "b", "count": True},
            "repeats": 2,
            "window": 2,
            "train": {k: v for k, v in TRAIN.items() if k != "beta"} | {"max_steps": 6, "save_steps": 6},
        },
        "constrained": {
            **common,
            "method": "xi",
            "train": {**TRAIN, "max_steps": 3, "save_steps": 3},
            "rewards": {name: {**block, "threshold": f"$proxy_points.{name}"} for name, block in rewards.items()},
        },
    }


@pytest.fixture(scope="module")
def ran(recipe, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface, "GRID", 12)  # in the place of 60, whose covariance takes seconds
        return run_recipe(folder, recipe)


def test_thresholds_are_found_and_held(ran):
    assert list(ran) == [
        "proxy_points-brief-1",
        "proxy_points-brief-2",
        "proxy_points-as-1",
        "proxy_points-as-2",
        "proxy_points-together-1",
        "proxy_points-together-2",
        "proxy_points",
        "constrained",
    ]
    assert ran["proxy_points-as-2"].seed == ran["proxy_points-as-1"].seed + 1
    output = ran["proxy_points"].output
    found = json.loads((output / "surface.json").read_text())
    assert len(found["runs"]) == 6
    assert {len(run) for run in found["runs"]} == {3}
    assert found["columns"] == ["brief", "as", "metric"]
    assert (output / "surface.png").stat().st_size > 10_000
    assert found["thresholds"] == json.loads((output / "thresholds.json").read_text())
    assert "metric is largest" in (output / "summary.txt").read_text()
    thresholds = json.loads((output / "thresholds.json").read_text())
    state = json.loads((ran["constrained"].dir / "checkpoints" / "checkpoint-3" / "objective.json").read_text())
    held = {name: value for name, (_, value) in state["objective"]["constraints"].items()}
    assert held == thresholds


def test_another_fit_makes_only_the_surface_and_what_follows_pending(recipe, tmp_path):
    path = str(write_recipe(tmp_path, recipe))
    before, after = (Recipe.load(path, words).steps for words in ([], ["stages.proxy_points.degree=4"]))
    changed = [a.name for a, b in zip(before, after, strict=True) if a.fingerprint != b.fingerprint]
    assert changed == ["proxy_points", "constrained"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("stages.constrained.rewards.as.threshold=$proxy_points.brif", "has no reward 'brif', did you mean 'brief'"),
        ("stages.proxy_points.repeats=0", "stages.proxy_points.repeats: must be at least 1, got 0"),
        ("stages.proxy_points.window=9", "stages.proxy_points.window: a run of 6 steps has fewer than 9 logged"),
    ],
)
def test_mistakes(word, message, recipe, folder, ran, capsys):
    """In the folder of the finished run, so that none of its trainings is made again."""
    assert train.main([str(write_recipe(folder, recipe, wandb=False)), word]) == 2
    assert message in capsys.readouterr().err


def test_too_few_points_for_a_surface_are_found_in_the_plan(recipe, tmp_path):
    block = {**recipe["proxy_points"], "repeats": 1, "together": False, "window": 4}
    path = str(write_recipe(tmp_path, {"proxy_points": block}))
    with pytest.raises(
        RecipeError, match=r"stages\.proxy_points\.repeats: 2 runs of 6 steps give 2 points, .* needs 6"
    ):
        Recipe.load(path)
    assert Recipe.load(path, ["stages.proxy_points.window=2"])
