"""Optimizers by their class: what a plan says of them, the trainings they make, and how those go on."""

import shutil

import pytest
import torch
from conftest import PAIR_ROWS, SFT_ROWS
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file
from short_trainings import write_rows

from trimtab.pipelines.planning import consent, kinds, preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Launch, Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import runner
from trimtab.pipelines.shrinking import recipe as shrinking

BLOCKS = {
    "lion": {"class": "pytorch_optimizer.Lion", "betas": [0.9, 0.95]},
    "free": {"class": "pytorch_optimizer.ScheduleFreeAdamW"},
    "frugal": {"class": "frugal", "density": 0.5, "update_gap": 2},
    "factored": {"class": "m_fac", "gradients": 3, "damp": 1e-2},
}


def sft(model, folder, block, **train):
    settings = {"max_steps": 5, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "save_steps": 1,
                "weight_decay": 0.1, "lr_scheduler_type": "constant", "gradient_checkpointing": False,
                **train}  # fmt: skip
    rows = write_rows(folder / "rows.jsonl", SFT_ROWS)
    return {"kind": "sft", "model": {"model_name_or_path": model}, "data": rows, "optimizer": block, "train": settings}


@pytest.fixture(scope="module")
def trained(model, tmp_path_factory):
    """The steps of five updates by each optimizer."""
    folder = tmp_path_factory.mktemp("optimizers")
    return folder, run_recipe(folder, {name: sft(model, folder, block) for name, block in BLOCKS.items()})


def state_of(step, number):
    return torch.load(step.dir / "checkpoints" / f"checkpoint-{number}" / "optimizer.pt", weights_only=True)


def test_the_class_is_made_of_its_keys_and_of_the_trainers_groups(trained, model):
    _, steps = trained
    lion = state_of(steps["lion"], 5)
    assert [group["weight_decay"] for group in lion["param_groups"]] == [0.1, 0.0]
    assert lion["param_groups"][0]["betas"] == [0.9, 0.95]
    assert {name for entries in lion["state"].values() for name in entries} == {"exp_avg"}
    frugal = state_of(steps["frugal"], 5)["param_groups"]
    assert {(group["block"], group["weight_decay"]) for group in frugal} == {
        (None, 0.1),
        (0, 0.1),
        (1, 0.1),
        (None, 0.0),
    }
    start = load_file(f"{model}/model.safetensors")
    for step in steps.values():
        moved = load_file(step.output / "model.safetensors")
        assert all((moved[name] != start[name]).any() for name in moved if "proj" in name)


def test_a_run_that_was_cut_ends_with_the_same_weights(trained, tmp_path):
    folder, steps = trained
    recipe = (folder / "recipe.yaml").read_text().replace(str(folder / "runs"), str(tmp_path / "runs"))
    (tmp_path / "recipe.yaml").write_text(recipe)
    for step in Recipe.load(str(tmp_path / "recipe.yaml")).steps:
        whole = steps[step.name].dir / "checkpoints" / "checkpoint-3"
        shutil.copytree(whole, step.dir / "checkpoints" / "checkpoint-3")
    stages = {
        name: {**block} for name, block in Recipe.load(str(folder / "recipe.yaml")).document.values["stages"].items()
    }
    for name, again in run_recipe(tmp_path, stages).items():
        assert artifacts.read_done(again.dir)["metrics"]["train/resumed_from"] == 3
        ours, theirs = (load_file(step.output / "model.safetensors") for step in (again, steps[name]))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_what_is_saved_of_a_schedule_free_training_is_its_average(trained):
    _, steps = trained
    last = load_file(steps["free"].dir / "checkpoints" / "checkpoint-5" / "model.safetensors")  # as it is stepped
    saved = load_file(steps["free"].output / "model.safetensors")
    assert any((last[name] != saved[name]).any() for name in saved)


def test_a_reward_models_head_alone_is_trained_by_m_fac_over_a_body_that_stays(model, tmp_path):
    """By PEFT's word for no module; the ring buffer of its two gradients is of 16 numbers each."""
    block = sft(model, tmp_path, {"class": "m_fac", "gradients": 2, "damp": 1e-2})
    block["model"] |= {"use_peft": True, "lora_target_modules": ["dummy-target-modules"]}
    block |= {"kind": "reward", "data": write_rows(tmp_path / "pairs.jsonl", PAIR_ROWS)}
    step = run_recipe(tmp_path, {"reward": block})["reward"]
    ours, start = load_file(step.output / "model.safetensors"), load_file(f"{model}/model.safetensors")
    assert all(torch.equal(ours[name], start[name]) for name in start if name.startswith("model."))
    heads = [load_file(step.dir / "checkpoints" / f"checkpoint-{at}" / "adapter_model.safetensors") for at in (4, 5)]
    assert [name for name in heads[0] if not torch.equal(heads[0][name], heads[1][name])] == list(heads[0])
    assert [value.shape for value in heads[1].values()] == [(1, 16)]


def planned(tmp_path, stages, launch=None):
    """What is wrong with a recipe that would be launched so."""
    recipe = Recipe.load(str(write_recipe(tmp_path, stages, wandb=False)))
    preflight.check(recipe, recipe.steps, launch=lambda step: launch or Launch(1, True))


@pytest.mark.parametrize(("block", "message"), [
    ({"class": "frugl"}, "optimizer.class: unknown kind 'frugl', did you mean 'frugal'?"),
    ({"class": "frugal", "density": 2}, "frugal cannot be made and stepped with these keys: density is a share"),
    ({"class": "frugal", "densty": 1}, "unexpected keyword argument 'densty'"),
    ({"class": "no_such_library.Lion"}, "is no_such_library installed"),
    ({"class": "subprocess.Popen"}, "is no torch.optim.Optimizer"),
    ({"class": "json.loads"}, "expected a class, but 'loads' is a function"),
    ({"class": "torch.optim.Muon"}, "Muon only supports 2D parameters"),
    ({"class": "frugal", "lr": 1}, "optimizer.lr: not a key of an optimizer: it is `train.learning_rate`"),
    ({"density": 0.5}, "'density' is a key of which `class`?"),
    ({"state": 3}, "optimizer.state: expected a stage"),
    ({"class": "m_fac", "limit_gb": 0.001}, "weights are 0.0 GB, and limit_gb is 0.001: keep fewer `gradients`"),
])  # fmt: skip
def test_what_a_plan_refuses(block, message, model, tmp_path):
    with pytest.raises(RecipeError) as error:
        planned(tmp_path, {"sft": sft(model, tmp_path, block)})
    assert message in str(error.value)


def test_two_ways_to_name_an_optimizer_are_refused(model, tmp_path):
    with pytest.raises(RecipeError, match=r"train\.optim: is of transformers' own optimizers"):
        planned(tmp_path, {"sft": sft(model, tmp_path, "frugal", optim="adamw_torch")})


@pytest.mark.parametrize("engine", ["fsdp2", "zero2", "zero3"])
def test_what_needs_whole_weights_is_refused_where_they_are_split(engine, model, tmp_path):
    for block, reason in (("frugal", "frugal keeps moments of a part of whole weights"),
                          ("m_fac", "m_fac takes the products of whole gradients"),
                          ("pytorch_optimizer.SOAP", "SOAP takes whole matrices into account")):  # fmt: skip
        with pytest.raises(RecipeError, match=reason):
            planned(tmp_path, {"sft": {**sft(model, tmp_path, block), "accelerate": engine}}, Launch(2, True))
    planned(
        tmp_path, {"sft": {**sft(model, tmp_path, "pytorch_optimizer.Lion"), "accelerate": engine}}, Launch(2, True)
    )


@pytest.mark.parametrize("engine", ["zero2", "zero3"])
@pytest.mark.parametrize(("word", "reason"), [
    ("ScheduleFreeAdamW", "keeps other weights than it steps, which DeepSpeed's copies of these cannot make room for"),
    ("ADOPT", "counts its steps for all weights together, and ZeRO-3 steps a part of them after another"),
    ("Adan", "counts its steps"),
])  # fmt: skip
def test_what_deepspeed_would_step_in_another_way_is_refused(engine, word, reason, model, tmp_path):
    def under(engine, word, **keys):
        block = {"class": f"pytorch_optimizer.{word}", **keys}
        planned(tmp_path, {"sft": {**sft(model, tmp_path, block), "accelerate": engine}}, Launch(2, True))

    with pytest.raises(RecipeError, match=f"{word} {reason}"):
        under(engine, word)
    under("fsdp2", word, foreach=False)
    under(engine, "Lion")


@pytest.mark.parametrize("word", ["Adan", "ADOPT"])
def test_what_steps_many_tensors_at_once_is_refused_where_torch_has_split_them(word, model, tmp_path):
    """In FSDP2's tensors, which know no such operation."""

    def with_keys(engine, **keys):
        block = {"class": f"pytorch_optimizer.{word}", **keys}
        planned(tmp_path, {"sft": {**sft(model, tmp_path, block), "accelerate": engine}}, Launch(2, True))

    with pytest.raises(
        RecipeError, match=f"{word} cannot step weights that FSDP2 has split: Operator .*foreach: false"
    ):
        with_keys("fsdp2")
    with_keys("fsdp2", foreach=False)


def test_a_macro_hands_it_to_all_its_trainings_and_it_is_part_of_them(model, tmp_path):
    def steps(**more):
        block = {"kind": "rejection_sampling", "model": {"model_name_or_path": model}, "prompts": "prompts.jsonl",
                 "rewards": {"brief": {"kind": "length", "target": 3}}, **more}  # fmt: skip
        recipe = Recipe.load(str(write_recipe(tmp_path, {"loop": block})))
        return {step.name: step for step in recipe.steps}

    plain, frugal, other = steps(), steps(optimizer="frugal"), steps(optimizer={"class": "frugal", "density": 0.5})
    assert frugal["loop"].options["optimizer"] == "frugal"
    assert "optimizer" not in frugal["loop-sample"].options
    assert len({each["loop"].fingerprint for each in (plain, frugal, other)}) == 3
    assert len({each["loop-sample"].fingerprint for each in (plain, frugal, other)}) == 1


def test_code_of_a_users_own_is_asked_about_before_it_is_imported(model, tmp_path, monkeypatch):
    (tmp_path / "their_steps.py").write_text(
        "open('ran', 'w').close()\nimport torch\nclass Slow(torch.optim.SGD):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTAB_TRUST")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    recipe = Recipe.load(str(write_recipe(tmp_path, {"sft": sft(model, tmp_path, "their_steps.Slow")}, wandb=False)))
    assert [code.name for code in consent.code_of(recipe.steps[0])] == ["their_steps.py"]
    assert not (tmp_path / "ran").exists()


def test_the_forecast_knows_what_is_kept_of_each_weight():
    from trimtab.pipelines.training.optimizers import numbers_kept

    assert numbers_kept(None) is None
    assert numbers_kept({"class": "frugal", "density": 0.25}) == 0.5
    assert numbers_kept({"class": "m_fac", "gradients": 8}) == 9
    assert numbers_kept({"class": "pytorch_optimizer.Lion"}) == 1


def test_a_shrunk_recipe_trains_by_every_optimizer_with_its_own_keys_small(tmp_path, monkeypatch):
    """Those of ours whose small keys would be too large for a few steps, or whose state for a tiny machine."""
    monkeypatch.chdir(tmp_path)
    asked = {
        "frugal": {"update_gap": 200},
        "m_fac": {"gradients": 1024},
        "igt": {"eta": 0.3},
        "pytorch_optimizer.Lion": {"betas": [0.9, 0.99]},
        "pytorch_optimizer.ScheduleFreeAdamW": {},
    }
    assert asked.keys() >= set(kinds.words(kinds.OPTIMIZERS))
    train = {"learning_rate": 1e-3, "max_steps": 1000, "weight_decay": 0.1}
    block = {"kind": "sft", "model": {"model_name_or_path": "org/llama-7b"}, "data": "org/data", "train": train}
    stages = {word.rpartition(".")[2]: {**block, "optimizer": {"class": word, **keys}} for word, keys in asked.items()}
    recipe = shrinking.shrunk(str(write_recipe(tmp_path, stages, wandb=False)))
    assert runner.train(recipe) == 0
    steps = {step.options["optimizer"]["class"]: step for step in Recipe.load(recipe).steps}
    for word, step in steps.items():
        small = getattr(kinds.find(kinds.OPTIMIZERS, word), "small", {})
        assert step.options["optimizer"] == {"class": word, **asked[word], **small}
        assert artifacts.read_done(step.dir)["metrics"]["train/steps"] < 5
