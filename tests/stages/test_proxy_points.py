"""Where a metric is largest over several rewards: the fit against known surfaces, and the stage from end to end."""

import json

import numpy as np
import pytest
from run_steps import run_recipe, write_recipe
from test_constrained import TRAIN
from trimtab.pipelines.algorithms import surface
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.scripts import train

PEAK = np.array([1.2, -3.0])


def seen(count=120, seed=0, noise=0.02):
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, -8], [2, 2], size=(count, 2))
    values = 0.7 - np.square((points - PEAK) / [2, 10]).sum(1) + noise * rng.standard_normal(count)
    return points, values


@pytest.mark.parametrize(("kind", "degree"), [("gaussian_process", 0), ("polynomial", 3)])
def test_the_peak_of_a_known_surface_is_found_with_its_error(kind, degree):
    off = []
    for seed in range(4):
        found = surface.fit(*seen(seed=seed), kind=kind, degree=degree)
        assert found.value == pytest.approx(0.7, abs=0.03)
        assert found.explained > 0.9
        assert (found.best_stderr > 0).all()
        off.append(np.abs(found.best - PEAK) / found.best_stderr)
        assert (np.abs(found.best - PEAK) < [0.3, 1.5]).all()
    assert np.mean(off) < 3


def test_one_reward_and_three_are_fitted_too():
    points, _ = seen()
    assert surface.fit(points[:, :1], -np.square(points[:, 0] - 1.2)).best[0] == pytest.approx(1.2, abs=0.1)
    rng = np.random.default_rng(0)
    three = rng.random((80, 3))
    found = surface.fit(three, -np.square(three - 0.5).sum(1))
    assert np.abs(found.best - 0.5).max() < 0.15


def test_where_nothing_was_seen_the_surface_does_not_count():
    """Points along a curve, on which the metric rises to its end: the proposal is on the curve, not beyond it."""
    along = np.linspace(0, 1, 60)
    points = np.stack([along, along**2], 1)
    found = surface.fit(points, along + 0.0)
    distance = np.sqrt(np.square(points - found.best).sum(1)).min()
    assert distance < 0.25
    assert found.best[0] > 0.6


def test_too_little_is_said():
    with pytest.raises(ValueError, match="5 points are too few for a surface over 2 rewards"):
        surface.fit(np.random.default_rng(0).random((5, 2)), np.zeros(5))
    with pytest.raises(ValueError, match="is the same at all points"):
        surface.fit(np.ones((9, 1)), np.zeros(9))


@pytest.fixture
def recipe(model, tmp_path):
    rows = [{"prompt": [{"role": "user", "content": f"say a b {i}"}]} for i in range(10)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rewards = {"brief": {"kind": "length", "target": 5, "unit": "characters"},
               "as": {"kind": "pattern", "regex": "a", "count": True}}  # fmt: skip
    common = {"model": {"model_name_or_path": model}, "data": str(tmp_path / "prompts.jsonl")}
    return {
        "proxy_points": {**common, "rewards": rewards, "metric": {"kind": "pattern", "regex": "b", "count": True},
                         "repeats": 2, "window": 2, "train": {k: v for k, v in TRAIN.items() if k != "beta"}},
        "constrained": {**common, "method": "xi", "train": TRAIN, "rewards": {
            name: {**block, "threshold": f"$proxy_points.{name}"} for name, block in rewards.items()}},
    }  # fmt: skip


def test_thresholds_are_found_and_held(recipe, tmp_path):
    steps = run_recipe(tmp_path, recipe)
    assert list(steps) == [
        "proxy_points-brief-1", "proxy_points-brief-2", "proxy_points-as-1", "proxy_points-as-2",
        "proxy_points-together-1", "proxy_points-together-2", "proxy_points", "constrained",
    ]  # fmt: skip
    assert steps["proxy_points-as-2"].seed == steps["proxy_points-as-1"].seed + 1
    output = steps["proxy_points"].output
    found = json.loads((output / "surface.json").read_text())
    assert len(found["runs"]) == 6
    assert {len(run) for run in found["runs"]} == {3}
    assert found["columns"] == ["brief", "as", "metric"]
    assert (output / "surface.png").stat().st_size > 10_000
    assert found["thresholds"] == json.loads((output / "thresholds.json").read_text())
    assert "metric is largest" in (output / "summary.txt").read_text()
    thresholds = json.loads((output / "thresholds.json").read_text())
    state = json.loads((steps["constrained"].dir / "checkpoints" / "checkpoint-7" / "objective.json").read_text())
    held = {name: value for name, (_, value) in state["objective"]["constraints"].items()}
    assert held == thresholds


def test_another_fit_makes_only_the_surface_and_what_follows_pending(recipe, tmp_path):
    path = str(write_recipe(tmp_path, recipe))
    before, after = (Recipe.load(path, words).steps for words in ([], ["stages.proxy_points.degree=4"]))
    changed = [a.name for a, b in zip(before, after, strict=True) if a.fingerprint != b.fingerprint]
    assert changed == ["proxy_points", "constrained"]


@pytest.mark.parametrize(("word", "message"), [
    ("stages.constrained.rewards.as.threshold=$proxy_points.brif", "has no reward 'brif', did you mean 'brief'"),
    ("stages.proxy_points.repeats=0", "stages.proxy_points.repeats: must be a whole number of at least 1"),
    ("stages.proxy_points.window=9", "has fewer than 9 logged rollouts"),
])  # fmt: skip
def test_mistakes(word, message, recipe, tmp_path, capsys):
    assert train.main([str(write_recipe(tmp_path, recipe, wandb=False)), word]) == 2
    assert message in capsys.readouterr().err
