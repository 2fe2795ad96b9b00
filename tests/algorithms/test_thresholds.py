"""The search for thresholds: both searches on problems with a known end, their state, and a training that searches."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from run_steps import run_recipe, write_recipe
from test_constrained import sha256, stages
from test_constrained_resume import run_again, two_ranks, two_ranks_command
from test_run import until
from trimtab.pipelines.algorithms import tabular, thresholds
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train


def run(asking, value, most):
    """Asks up to `most` times and returns the points with their values."""
    rows = []
    point = next(asking)
    while len(rows) < most:
        rows.append((point, value(point)))
        try:
            point = asking.send(rows[-1][1])
        except StopIteration:
            break
    return rows


class Bandit:
    """Twelve answers, two rewards, and a gold reward of their means that is largest where lambda is (2, 1)."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.reference, self.rewards = np.log(rng.dirichlet(np.ones(12))), rng.random((2, 12))
        self.start = self.rewards @ np.exp(self.reference)
        self.peak = self.rewards @ np.exp(tabular.tilted(self.reference, self.rewards, np.array([0.8, 0.4])))
        self.solves = 0

    def gold(self, point):
        """Of the policy that the project's multipliers hold at the thresholds `point`."""
        self.solves += 1
        settings = MultiplierSettings(parametrization="softplus", learning_rate=2.0, max_grad_norm=100, momentum=0.5)
        names = dict(zip("ab", point, strict=True))
        multipliers = Multipliers({name: Constraint(value, "equal") for name, value in names.items()}, settings)
        table = dict(zip("ab", self.rewards, strict=True))
        policy = np.exp(tabular.primal_dual(self.reference, table, multipliers, 2000, 0.5))
        return -float(np.square(self.rewards @ policy - self.peak).sum())


@pytest.mark.parametrize("seed", range(3))
def test_nelder_mead_finds_the_thresholds_of_the_bandit_within_80_solves(seed):
    bandit = Bandit(seed)
    rows = run(thresholds.nelder_mead(thresholds.simplex(bandit.start, bandit.start + 0.15, seed)), bandit.gold, 80)
    best = max(rows, key=lambda row: row[1])[0]
    assert bandit.solves <= 80
    assert np.abs(bandit.start - bandit.peak).max() > 0.01
    np.testing.assert_allclose(best, bandit.peak, atol=1e-5)


def test_nelder_mead_shrinks_and_ends_when_its_values_are_alike():
    rows = run(thresholds.nelder_mead(np.array([[0.0, 0], [1, 0], [0, 1]]), 1e-6), lambda p: -float(p @ p), 200)
    assert len(rows) < 120
    assert max(rows, key=lambda row: row[1])[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_bayes_comes_near_to_the_peak_of_a_noisy_metric(seed):
    rng, peak, low, high = np.random.default_rng(seed), np.array([0.4, -1.0]), np.array([0.0, -4]), np.array([1.0, 2])

    def truth(point):
        return -float(np.square((point - peak) / (high - low)).sum())

    rows = run(thresholds.bayes(low, high, seed), lambda p: truth(p) + 0.02 * rng.standard_normal(), 24)
    late = np.mean([truth(point) for point, _ in rows[-6:]])
    points, values = np.array([(p - low) / (high - low) for p, _ in rows]), np.array([value for _, value in rows])
    best = rows[int(np.argmax(thresholds.fit(points, values).predict(points)))][0]
    assert truth(best) > -0.02
    assert late > np.mean([truth(point) for point, _ in rows[:4]])


@pytest.mark.parametrize("kind", ["nelder_mead", "bayes"])
def test_a_search_goes_on_from_its_state(kind):
    def asking():
        low, high = np.zeros(2), np.ones(2)
        return (thresholds.bayes(low, high, 3) if kind == "bayes"
                else thresholds.nelder_mead(thresholds.simplex(low, high, 3)))  # fmt: skip

    def value(point):
        return -float(np.square(point - 0.3).sum())

    whole = thresholds.Search(asking)
    for at in range(12):
        whole.tell(value(whole.point), at)
    half = thresholds.Search(asking)
    for at in range(5):
        half.tell(value(half.point), at)
    again = thresholds.Search(asking)
    again.load_state_dict(json.loads(json.dumps(half.state_dict())))
    for at in range(5, 12):
        again.tell(value(again.point), at)
    assert again.history == whole.history


def test_near_points_are_not_asked_twice_unless_their_value_is_stale():
    def asking():
        for point in ([1.0], [1.04], [2.0], [1.03]):
            yield np.array(point)

    search = thresholds.Search(asking, cache=0.05, stale_after=10)
    search.tell(7.0, at=0)  # and 1.04 is near
    assert [row["reused"] for row in search.history] == [False, True]
    assert search.point.tolist() == [2.0]
    search.tell(8.0, at=20)  # by now the value at 1.0 is old
    assert search.point.tolist() == [1.03]
    search.tell(6.0, at=21)
    assert search.point is None
    assert search.best["point"] == [2.0]


def searching(model, prompts, search="nelder_mead", **options):
    watched = {"metric": {"kind": "pattern", "regex": "b", "count": True, "weight": 0}}
    block = stages(model, prompts, eval_data=prompts, train={"per_device_eval_batch_size": 8, "max_steps": 12,
                                                             "save_total_limit": 20}, **options)  # fmt: skip
    block["constrained"]["rewards"] = block["constrained"]["rewards"] | watched
    block["constrained"]["thresholds"] = {"search": search, "metric": "metric", "patience": 2, "settle": 0.2}
    return block


@pytest.mark.parametrize(("search", "trainer"), [("nelder_mead", "grpo"), ("bayes", "ppo")])
def test_a_run_that_searches_resumes_in_the_middle_of_a_point(search, trainer, model, prompts, tmp_path, capsys):
    block = searching(model, prompts, search, trainer=trainer)
    first = tmp_path / "undisturbed"
    first.mkdir()
    whole = run_recipe(first, block)["constrained"]
    said = capsys.readouterr().out
    assert "thresholds, step 2: brief " in said
    assert "held from now on" in said
    found = json.loads((whole.output / "search.json").read_text())
    assert len(found["history"]) >= 4
    assert found["thresholds"] == max(found["history"], key=lambda row: row["value"])["point"]
    assert json.loads((whole.output / "thresholds.json").read_text()) == found["thresholds"]
    for at in (1, 5, 6):
        again = run_again(tmp_path, block, whole, at)
        assert sha256(again) == sha256(whole), f"from step {at}"
        assert (again.output / "search.json").read_text() == (whole.output / "search.json").read_text()


@pytest.mark.slow
def test_killed_on_two_ranks_in_the_middle_of_a_point_it_ends_as_undisturbed(model, prompts, tmp_path):
    block = searching(model, prompts, trainer="ppo")
    block["constrained"]["train"] |= {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4}
    block["constrained"]["thresholds"]["patience"] = 4
    folders = [tmp_path / "whole", tmp_path / "killed"]
    steps = []
    for folder in folders:
        folder.mkdir()
        write_recipe(folder, block, wandb=False, output_dir=str(folder / "runs"))
        steps += Recipe.load(str(folder / "recipe.yaml")).steps
    code, out = two_ranks(folders[0] / "recipe.yaml")
    assert code == 0, out
    mark = steps[1].dir / "checkpoints" / "checkpoint-6" / "complete.json"
    launched = subprocess.Popen(two_ranks_command(folders[1] / "recipe.yaml"), cwd=ROOT, start_new_session=True,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    until(mark.exists, 240)
    os.killpg(launched.pid, signal.SIGKILL)
    launched.wait()
    assert not steps[1].done
    spent = [json.loads((path.parent / "objective.json").read_text())["objective"]["spent"]
             for path in (steps[1].dir / "checkpoints").glob("*/complete.json")]  # fmt: skip
    assert any(0 < each < 4 for each in spent)
    code, out = two_ranks(folders[1] / "recipe.yaml")
    assert code == 0, out
    assert artifacts.read_done(steps[1].dir)["metrics"]["train/resumed_from"] >= 6
    assert sha256(steps[0]) == sha256(steps[1])
    assert (steps[0].output / "search.json").read_text() == (steps[1].output / "search.json").read_text()


def test_a_threshold_can_be_what_a_stage_above_has_found(model, prompts, tmp_path):
    found = searching(model, prompts)
    second = stages(model, prompts)["constrained"]
    second["rewards"] = {"brief": {**second["rewards"]["brief"], "threshold": "$constrained.brief"}}
    path = write_recipe(tmp_path, {**found, "second": {"kind": "constrained", **second}}, wandb=False)
    assert train.main([str(path)]) == 0
    steps = {step.name: step for step in Recipe.load(str(path)).steps}
    thresholds_ = json.loads((steps["constrained"].output / "thresholds.json").read_text())
    state = json.loads((steps["second"].dir / "checkpoints" / "checkpoint-7" / "objective.json").read_text())
    assert state["objective"]["constraints"]["brief"] == ["equal", thresholds_["brief"]]
    assert steps["constrained"] in steps["second"].inputs


@pytest.mark.parametrize(("change", "message"), [
    ({"metric": "metrik"}, "did you mean 'metric'"),
    ({"metric": "brief"}, "brief is trained on"),
    ({"within": 0}, "stages.constrained.thresholds: within must be above 0"),
])  # fmt: skip
def test_mistakes(change, message, model, prompts, tmp_path, capsys):
    block = searching(model, prompts)
    block["constrained"]["thresholds"] |= change
    assert train.main([str(write_recipe(tmp_path, block, wandb=False))]) == 2
    assert message in capsys.readouterr().err
