"""The rounds of `self_consuming`: their order, the mix with real data, and the end that keeps the last good round."""

import math
import os
import signal

import numpy as np
import pytest
from conftest import SFT_ROWS
from launches import finished, train_started, until, weights
from outputs import metrics_of, rows_of
from run_steps import run_recipe, write_recipe
from short_trainings import BRIEF, LOOP_TRAIN, say, write_rows

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.scripts import train


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    rows = {"prompts": say(12), "real": SFT_ROWS}
    return {name: write_rows(folder / f"{name}.jsonl", rows[name]) for name in rows}


def stages(model, files, **options):
    block = {
        "model": {"model_name_or_path": model},
        "prompts": files["prompts"],
        "real": files["real"],
        "real_eval": files["real"],
        "rewards": {"brief": BRIEF},
        "rounds": 2,
        "num_generations": 3,
        "real_fraction": 0.25,
        "generate": {"max_new_tokens": 6},
        "train": LOOP_TRAIN,
    }
    return {"loop": {"kind": "self_consuming", **block, **options}}


@pytest.fixture(scope="module")
def ran(model, files, tmp_path_factory):
    return run_recipe(tmp_path_factory.mktemp("loop"), {**stages(model, files), "report": {}})


def test_the_rounds_in_their_order(ran):
    parts = ("sample", "score", "monitor", "curate", "mix")
    rounds = [name for at in (1, 2) for name in (*(f"loop-{at}-{part}" for part in parts), f"loop-{at}")]
    assert list(ran) == [*rounds, "loop", "report"]
    assert ran["loop-2-sample"].options["model"]["model_name_or_path"] == str(ran["loop-1"].output)
    assert ran["loop-2"].options["model"]["model_name_or_path"] == str(ran["loop-1"].output)


def test_every_step_that_reads_rows_says_how_many_of_each_dataset(ran):
    counted = {name: artifacts.read_done(step.dir)["rows"] for name, step in ran.items()}
    asked = 3 * 12
    assert counted["loop-1-score"] == {"completions": {"loop-1-sample": {"read": asked, "used": asked}}}
    assert set(counted["loop-1-monitor"]) == {"scored", "real"}
    mixed = counted["loop-1-mix"]
    kept = metrics_of(ran["loop-1-curate"])["kept"]
    assert mixed["synthetic"] == {"loop-1-curate": {"read": kept, "used": kept}}
    drawn = metrics_of(ran["loop-1-mix"])["real"]
    assert mixed["real"] == {"real": {"read": len(SFT_ROWS), "drawn": drawn, "used": drawn}}


def test_the_mix_has_its_share_of_real_rows(ran):
    rows = rows_of(ran["loop-1-mix"])
    real = [row for row in rows if row["source"] == "real"]
    assert len(rows) - len(real) == metrics_of(ran["loop-1-curate"])["kept"]
    assert len(real) / len(rows) == pytest.approx(0.25, abs=0.04)
    assert {row["completion"][0]["content"] for row in real} <= {r["completion"][0]["content"] for r in SFT_ROWS}


def test_without_an_end_the_last_round_is_returned(ran):
    assert weights(ran["loop"]) == weights(ran["loop-2"])
    assert metrics_of(ran["loop"]) == {"round": 2, "rounds": 2}


def test_the_likelihood_of_real_data_is_that_of_the_trainer(ran):
    """The monitor of round 2 watches the model that round 1 has trained, on what it was evaluated on."""
    assert metrics_of(ran["loop-2-monitor"])["real_nll"] == pytest.approx(
        metrics_of(ran["loop-1"])["eval/loss"], abs=1e-3
    )


def test_a_limit_ends_the_loop_and_the_last_good_round_is_returned(model, files, tmp_path, capfd):
    """Round 2's policy is farther from the start than nothing, so what it would be trained into is never made."""
    options = {"rounds": 3, "monitor": {"stop_if": {"kl": 1e-6}}}
    path = write_recipe(tmp_path, stages(model, files, **options), wandb=False)
    assert train.main([str(path)]) == 0
    steps = {step.name: step for step in Recipe.load(str(path)).steps}
    said = capfd.readouterr().out
    assert "not made: loop-2-monitor: kl is" in said
    assert "the loop has ended early: loop-2-monitor: kl is" in said
    for name in ("loop-2-curate", "loop-2-mix", "loop-2", "loop-3-sample", "loop-3", "loop-4-monitor"):
        assert metrics_of(steps[name]) == {"stopped": 1}
    assert metrics_of(steps["loop"])["round"] == 0
    assert train.main([str(path), "--stage", "loop"]) == 0  # everything is done


@pytest.mark.slow
def test_the_last_rounds_model_is_watched_too(model, files, tmp_path):
    """Every round's policy is a little farther away: a limit between the last two is met after the last round."""
    steps = run_recipe(tmp_path, stages(model, files, rounds=2, monitor={"stop_if": {"kl": 1e9}}))
    assert metrics_of(steps["loop"])["round"] == 2
    last = metrics_of(steps["loop-3-monitor"])["kl/mean"]
    other = metrics_of(steps["loop-2-monitor"])["kl/mean"]
    if last > other > 0:
        limit = (last + other) / 2
        steps = run_recipe(tmp_path, stages(model, files, rounds=2, monitor={"stop_if": {"kl": limit}}))
        assert metrics_of(steps["loop"])["round"] == 1
        assert weights(steps["loop"]) == weights(steps["loop-1"])


@pytest.mark.parametrize(("fraction", "real"), [(0.0, 0), (1.0, 12)])
def test_controls(model, files, tmp_path, fraction, real):
    steps = run_recipe(tmp_path, stages(model, files, rounds=1, real_fraction=fraction, temperature=float("inf")))
    assert metrics_of(steps["loop-1-mix"])["real"] == real
    assert metrics_of(steps["loop-1-mix"])["rows"] == 12


def test_fresh_and_accumulated(model, files, tmp_path):
    recipe = write_recipe(tmp_path, stages(model, files, retrain="fresh", synthetic="accumulated"))
    steps = {step.name: step for step in Recipe.load(str(recipe)).steps}
    assert steps["loop-2"].options["model"]["model_name_or_path"] == model
    assert len(steps["loop-2-mix"].options["synthetic"]) == 2


def test_a_loop_without_real_data_is_warned_about(model, files, tmp_path, caplog):
    options = stages(model, files, real_fraction=0)
    Recipe.load(str(write_recipe(tmp_path, {"lonely": options["loop"]})))
    assert "lonely: without real data" in caplog.text
    assert "loses everything else" in caplog.text
    with pytest.raises(RecipeError, match=r"stages.loop.rounds: must be at least 1"):
        Recipe.load(str(write_recipe(tmp_path, stages(model, files, rounds=0))))


def test_monitors_hold_the_theory_to_account(ran):
    """E[e^r] of a round and what S3 promises for it are those of the scores, by the formulas written out."""

    def groups(at):
        rows = rows_of(ran[f"loop-{at}-score"])
        found = {}
        for row in rows:
            found.setdefault(row["prompt_index"], []).append(row["scores"]["brief"])
        return [np.exp(np.array(scores)) for scores in found.values()]

    first, second = metrics_of(ran["loop-1-monitor"]), metrics_of(ran["loop-2-monitor"])
    assert first["exp_reward/log"] == pytest.approx(math.log(np.mean([w.mean() for w in groups(1)])))
    assert "exp_reward/log_promised" not in first
    gains = [w.var() / w.max() for w in groups(1)]  # (K-1)/K of the unbiased variance
    promised = np.mean([w.mean() for w in groups(1)]) + 3 / (1 + 3) ** 3 * np.mean(gains)  # lambda is 3
    assert second["exp_reward/log_promised"] == pytest.approx(math.log(promised))
    assert "kl_bound" not in second  # 3 is above 1 / (K - 1)


def test_diversity_is_relative_to_the_first_round(ran):
    first, second = metrics_of(ran["loop-1-monitor"]), metrics_of(ran["loop-2-monitor"])
    assert second["distinct_2/ratio"] == pytest.approx(second["distinct_2"] / first["distinct_2"])
    assert 0 <= second["vocabulary"] <= 1
    assert 0 <= second["similarity"] <= 1


def test_a_page_draws_a_loop_once(ran):
    page = (ran["report"].output / "report.html").read_text()
    for title in ("log E[exp(reward)]", "Diversity", "Real data (nats per token)", "Share of real rows"):
        assert page.count(title) == 1


@pytest.mark.slow
def test_a_run_killed_in_each_round_resumes_there_and_ends_with_equal_weights(model, files, tmp_path):
    long = {**LOOP_TRAIN, "max_steps": 40, "save_steps": 4, "save_total_limit": 2, "num_train_epochs": 1}
    block = stages(model, files, train=long)
    recipe = str(write_recipe(tmp_path, block, wandb=False))
    steps = {step.name: step for step in Recipe.load(recipe).steps}
    for name in ("loop-1", "loop-2"):
        process = train_started(recipe)
        until(lambda folder=steps[name].dir: list(folder.glob("checkpoints/checkpoint-*/complete.json")), 240)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert not steps[name].done
    code, out = finished(train_started(recipe))
    assert code == 0, out
    undisturbed = run_recipe(tmp_path, block, output_dir=str(tmp_path / "other"))
    for name in ("loop-1", "loop-2", "loop"):
        assert weights(steps[name]) == weights(undisturbed[name])
    for name in ("loop-1", "loop-2"):
        assert metrics_of(steps[name])["train/resumed_from"] > 0
