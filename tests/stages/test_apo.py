"""The rounds of `apo`: which model samples, is trained and is returned; its controls, guard and resumption."""

import json
import os
import signal

import pytest
import torch
from launches import finished, train_started, until, weights
from outputs import metrics_of, rows_of
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file
from short_trainings import LOOP_TRAIN, apo, plan, say, write_rows

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.scripts import train


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    """A file of eighteen prompts, six for each of three rounds."""
    return write_rows(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", say(18))


@pytest.fixture(scope="module")
def ran(model, prompts, tmp_path_factory):
    return run_recipe(tmp_path_factory.mktemp("apo"), {**apo(model, prompts), "report": {}})


def tensors(step):
    return load_file(step.output / "model.safetensors")


def test_the_rounds_in_their_order(ran):
    names = [name for name in ran if name != "report"]
    assert names == [
        *(f"apo-1-{part}" for part in ("sample", "score", "monitor", "pair")),
        "apo-1",
        "apo-1-extrapolate",
        *(f"apo-2-{part}" for part in ("sample", "score", "monitor", "pair")),
        "apo-2",
        "apo-2-extrapolate",
        *(f"apo-3-{part}" for part in ("sample", "score", "monitor", "pair")),
        "apo",
    ]


def test_the_extrapolated_policy_samples_and_is_trained_and_momentum_is_between_trained_ones(ran):
    for at, last in ((2, "apo-2"), (3, "apo")):
        theta = str(ran[f"apo-{at - 1}-extrapolate"].output)
        assert ran[f"apo-{at}-sample"].options["model"]["model_name_or_path"] == theta
        assert ran[last].options["model"]["model_name_or_path"] == theta
    second = ran["apo-2-extrapolate"].options
    assert (second["new"], second["previous"]) == (str(ran["apo-2"].output), str(ran["apo-1"].output))
    new, before, theta = (tensors(ran[name]) for name in ("apo-2", "apo-1", "apo-2-extrapolate"))
    for name in new:
        expected = new[name].double() + 0.3 * (new[name].double() - before[name].double())
        torch.testing.assert_close(theta[name].double(), expected, atol=1e-6, rtol=0)
    assert any(not torch.equal(new[name], before[name]) for name in new)


def test_every_round_has_its_own_prompts(ran):
    samples = [rows_of(ran[f"apo-{at}-sample"]) for at in (1, 2, 3)]
    assert [len(rows) for rows in samples] == [6 * 4] * 3
    assert [ran[f"apo-{at}-sample"].options["fold"] for at in (1, 2, 3)] == [[1, 3], [2, 3], [3, 3]]


def test_references_are_those_of_sampling(ran):
    for name in ("apo-1", "apo-2", "apo"):
        assert metrics_of(ran[name])["ref_logps/largest_error"] < 1e-3


def test_each_round_is_watched(ran):
    first, third = (metrics_of(ran[f"apo-{at}-monitor"]) for at in (1, 3))
    assert first["kl/mean"] == pytest.approx(0, abs=1e-5)  # it is the reference
    assert third["kl/mean"] != 0
    assert "kl_trained/mean" not in first
    assert third["kl_trained/mean"] != 0  # extrapolation has moved it
    assert first["entropy"] > 0
    assert third["length/ratio"] == pytest.approx(third["length/mean"] / first["length/mean"])
    assert first.keys().isdisjoint({"win_rate/brief/mean"})
    assert 0 < third["win_rate/brief/mean"] < 1
    page = (ran["report"].output / "report.html").read_text()
    assert "Entropy (nats per token)" in page


def test_without_momentum_it_is_iterative_dpo(tmp_path, model, prompts):
    steps = plan(tmp_path, apo(model, prompts, momentum=0))
    assert not [name for name in steps if "extrapolate" in name]
    assert steps["apo-2-sample"].options["model"]["model_name_or_path"] == str(steps["apo-1"].output)


def test_what_is_kept_is_said_once_for_all_rounds_and_changes_no_step(tmp_path, model, prompts):
    steps, kept = (plan(tmp_path, apo(model, prompts), *words) for words in ((), ("defaults.keep=final",)))
    assert {kept[name].options["keep"] for name in ("apo-1", "apo-2", "apo")} == {"final"}
    assert [step.dir for step in kept.values()] == [step.dir for step in steps.values()]


def test_the_controls_are_one_override_and_share_the_first_round(tmp_path, model, prompts):
    momentum = plan(tmp_path, apo(model, prompts))
    iterative = plan(tmp_path, apo(model, prompts), "stages.apo.momentum=0")
    matched = plan(tmp_path, apo(model, prompts), "stages.apo.arm=matched")
    assert momentum["apo-1"].fingerprint == iterative["apo-1"].fingerprint
    assert matched["apo-1-pair"].fingerprint == iterative["apo-1-pair"].fingerprint
    assert iterative["apo"].options["beta"] == 0.1
    betas = [matched[name].options["beta"] for name in ("apo-1", "apo-2", "apo")]
    assert betas == pytest.approx([0.1 / 1.39, 0.1 / 1.3, 0.1])
    assert not [name for name in matched if "extrapolate" in name]


def test_the_matched_arm_is_that_of_any_betas_and_momenta(tmp_path, model, prompts):
    by_round = apo(model, prompts, momentum=[0.3, 0.6, 0], beta=[0.01, 0.1, 1.0])
    steps = plan(tmp_path, by_round, "stages.apo.arm=matched")
    betas = [steps[name].options["beta"] for name in ("apo-1", "apo-2", "apo")]
    assert betas == pytest.approx([0.01 / 1.48, 0.1 / 1.6, 1.0])


def test_the_rate_arm_learns_faster_instead(tmp_path, model, prompts):
    block = apo(model, prompts, momentum=[0.3, 0.6, 0])
    rate = block["apo"]["train"]["learning_rate"]
    steps = plan(tmp_path, block, "stages.apo.arm=rate")
    rates = [steps[name].options["train"]["learning_rate"] for name in ("apo-1", "apo-2", "apo")]
    assert rates == pytest.approx([1.3 * rate, 1.6 * rate, rate])
    assert {steps[name].options["beta"] for name in ("apo-1", "apo-2", "apo")} == {0.1}
    assert not [name for name in steps if "extrapolate" in name]
    del block["apo"]["train"]["learning_rate"]
    with pytest.raises(RecipeError, match="write which one that is"):
        plan(tmp_path, block, "stages.apo.arm=rate")


def test_the_early_arm_goes_on_from_where_held_out_preferences_are_predicted_best(tmp_path, model):
    prompts = write_rows(
        tmp_path / "prompts.jsonl", [{"prompt": [{"role": "user", "content": f"say {i}"}]} for i in range(24)]
    )
    block = apo(model, prompts, rounds=2, arm="early", train={**LOOP_TRAIN, "max_steps": 10, "learning_rate": 0.3})
    steps = run_recipe(tmp_path, block)
    assert not [name for name in steps if "extrapolate" in name]
    assert steps["apo-2-sample"].options["model"]["model_name_or_path"] == str(steps["apo-1"].output)
    for name in ("apo-1", "apo"):
        rows = tracking.read(steps[name].dir / "metrics.jsonl")
        losses = [row["eval/loss"] for row in rows if "eval/loss" in row]
        assert len(losses) >= 10
        assert max(losses[:10]) > min(losses[:10])  # the rate is so large that they differ
        assert metrics_of(steps[name])["eval/loss"] == pytest.approx(min(losses[:10]), rel=1e-4)
    with pytest.raises(RecipeError, match="whose moments are not kept"):
        plan(tmp_path, apo(model, prompts, arm="early", optimizer="warm"))


def test_settings_by_round_and_losses_of_trl(tmp_path, model, prompts):
    steps = plan(tmp_path, apo(model, prompts, momentum=[0, 0.3, 0], beta=[0.01, 0.1, 1.0], epochs=[1, 1, 4]))
    assert [steps[name].options["beta"] for name in ("apo-1", "apo-2", "apo")] == [0.01, 0.1, 1.0]
    assert [steps[name].options["train"]["num_train_epochs"] for name in ("apo-1", "apo-2", "apo")] == [1, 1, 4]
    assert [name for name in steps if "extrapolate" in name] == ["apo-2-extrapolate"]
    steps = plan(tmp_path, apo(model, prompts, loss="robust", rounds=1))
    assert steps["apo"].kind == "dpo"
    assert steps["apo"].options["train"]["loss_type"] == "robust"
    assert "fold" not in steps["apo-1-sample"].options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "stages.apo.rounds: must be at least 1"),
        ({"momentum": 1.0}, "stages.apo.momentum: must be at least 0 and below 1"),
        ({"beta": [0.1, 0.2]}, "stages.apo.beta: expected one number, or 3 for 3 rounds"),
        ({"rewards": {}}, "stages.apo.rewards: required key is missing"),
        ({"model": {"dtype": "float32"}}, "stages.apo.model.model_name_or_path: required key is missing"),
    ],
)
def test_mistakes_are_named(tmp_path, model, prompts, options, message):
    words = [f"stages.apo.{key}={json.dumps(value)}" for key, value in options.items()]
    with pytest.raises(RecipeError, match="stages") as caught:
        plan(tmp_path, apo(model, prompts), *words)
    assert message in str(caught.value)


def test_the_guard_ends_the_loop_and_says_why(tmp_path, model, prompts, capsys):
    path = write_recipe(tmp_path, apo(model, prompts, rounds=1, monitor={"stop_if": {"entropy": 1e9}}), wandb=False)
    assert train.main([str(path)]) == 2
    error = capsys.readouterr().err
    assert "apo-1-monitor: entropy is" in error
    assert "below 1e+09: the policy has left the range you trust" in error
    path = write_recipe(tmp_path, apo(model, prompts, monitor={"stop_if": {"lenght": 2}}))
    assert train.main([str(path)]) == 2
    assert "unknown limit, did you mean 'length'?" in capsys.readouterr().err


def test_sppo_and_all_answers(tmp_path, model, prompts):
    steps = run_recipe(tmp_path, apo(model, prompts, rounds=2, loss="sppo", beta=0.1, select="ranked"))
    assert metrics_of(steps["apo"])["train/loss"] > 0


def test_two_answers_drawn_at_random(tmp_path, model, prompts):
    steps = run_recipe(tmp_path, apo(model, prompts, rounds=1, select="drawn"))
    assert steps["apo-1-pair"].options["select"] == "drawn"
    assert metrics_of(steps["apo"])["train/steps"] == 2


def test_lora_rounds_are_merged_before_momentum(tmp_path, model, prompts):
    lora = {"model_name_or_path": model, "use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]}
    steps = run_recipe(tmp_path, {"apo": {**apo(model, prompts, rounds=2)["apo"], "model": lora}})
    new, theta = tensors(steps["apo-1"]), tensors(steps["apo-1-extrapolate"])
    start = load_file(f"{model}/model.safetensors")
    for name in new:
        expected = new[name].double() + 0.3 * (new[name].double() - start[name].double())
        torch.testing.assert_close(theta[name].double(), expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_run_killed_in_its_second_round_resumes_there_and_ends_with_equal_weights(tmp_path, model, prompts):
    block = apo(
        model,
        prompts,
        rounds=2,
        train={
            **LOOP_TRAIN,
            "max_steps": 40,
            "save_steps": 4,
            "save_total_limit": 2,
            "num_train_epochs": 1,
            "logging_steps": 4,
        },
    )
    recipe = str(write_recipe(tmp_path, block, wandb=False))
    last = Recipe.load(recipe).steps[-1]
    process = train_started(recipe)
    until(lambda: list(last.dir.glob("checkpoints/checkpoint-*/complete.json")), 240)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not last.done
    earlier = [step.dir / "done.json" for step in Recipe.load(recipe).steps[:-1]]
    before = [path.stat().st_mtime_ns for path in earlier]
    code, out = finished(train_started(recipe))
    assert code == 0, out
    assert before == [path.stat().st_mtime_ns for path in earlier]
    assert metrics_of(last)["train/resumed_from"] > 0
    undisturbed = run_recipe(tmp_path, block, output_dir=str(tmp_path / "other"))["apo"]
    assert weights(last) == weights(undisturbed)
