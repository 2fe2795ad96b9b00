"""Every stage that trains, on two ranks under DDP, FSDP2, ZeRO-2 and ZeRO-3 (gloo, on a CPU): the weights are equal.

The reference is one process with both ranks' batches. An engine has one launch, of all stages: a fork (tests/warm.py),
but for ZeRO-2's, which is as a user launches it; those of the other engines are in test_two_hosts.py.
"""

import json
import shutil
from itertools import product
from random import Random

import pytest
import torch
from conftest import PAIR_ROWS, SFT_ROWS
from kills import Blow, strike
from launches import TWO, trained, two_ranks_started, until, warm
from outputs import metrics_of
from run_steps import run_recipe, write_recipe
from safetensors.torch import load_file

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import launch as launching
from trimtab.pipelines.training.checkpoints import MARK
from trimtab.scripts import run

pytestmark = pytest.mark.slow
ENGINES = ("ddp", "zero2", "zero3", "fsdp2")
SHARDING = ("zero3", "fsdp2")
STAGES = ("sft", "reward", "classifier", "dpo", "prefer", "grpo", "ppo")
ADAPTED = ("dpo-lora", "grpo-lora")
OPTIMIZERS = {"adamw": {"class": "torch.optim.AdamW"},
              "lion": {"class": "pytorch_optimizer.Lion"},
              "adan": {"class": "pytorch_optimizer.Adan", "foreach": False},
              "adopt": {"class": "pytorch_optimizer.ADOPT", "foreach": False},
              "free": {"class": "pytorch_optimizer.ScheduleFreeAdamW"},
              "frugal": {"class": "frugal", "density": 0.5, "update_gap": 2},
              "factored": {"class": "m_fac", "gradients": 2, "damp": 0.1},
              "ahead": {"class": "igt", "eta": 0.3}}  # fmt: skip
OF_ZERO = ("adamw", "lion")
OF_ENGINE = {"ddp": tuple(OPTIMIZERS), "zero2": OF_ZERO, "zero3": OF_ZERO,
             "fsdp2": (*OF_ZERO, "adan", "adopt", "free")}  # fmt: skip
SAMPLES = ("grpo", "ppo")
BY_TOKENS = ("reward", "dpo", "prefer")
NAMES = {"ddp": "MULTI_CPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp2": "FSDP"}
STEPS = {"max_steps": 3, "learning_rate": 1e-3, "logging_steps": 1, "save_steps": 1, "save_total_limit": 5,
         "gradient_checkpointing": False, "lr_scheduler_type": "constant", "adam_epsilon": 1e-4}  # fmt: skip
TOLERANCE = 2e-5  # of a weight, after steps of up to 3e-3


@pytest.fixture(scope="module")
def inputs(model, lists, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    prompts = [{"prompt": [{"role": "user", "content": f"say a b {i}"}]} for i in range(10)]
    texts = [{"text": f"{'abc'[i % 3]} {i}", "label": i % 3} for i in range(12)]
    for name, rows in (("sft", SFT_ROWS), ("pairs", PAIR_ROWS), ("prompts", prompts), ("texts", texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"model": model, "lists": str(lists["ranked"].output),
            **{name: str(folder / f"{name}.jsonl") for name in ("sft", "pairs", "prompts", "texts")}}  # fmt: skip


def block(stage, inputs, batch, **train):
    settings = {**STEPS, "per_device_train_batch_size": batch, **train}
    model = {"model_name_or_path": inputs["model"]}
    if stage in OPTIMIZERS:
        del settings["adam_epsilon"]
        settings |= {"learning_rate": 0.1} if stage == "ahead" else {}  # the length of a step of all weights
        return {"kind": "sft", "model": model, "data": inputs["sft"], "optimizer": OPTIMIZERS[stage],
                "train": {**settings, "weight_decay": 0.1}}  # fmt: skip
    stage, _, adapters = stage.partition("-")
    if adapters:
        model |= {"use_peft": True, "lora_r": 4, "lora_dropout": 0.0}
        settings["learning_rate"] = 1e-2
    if stage in SAMPLES:
        rewards = {"brief": {"kind": "length", "target": 5, "unit": "characters", "threshold": 0.5},
                   "as": {"kind": "pattern", "regex": "a", "count": True, "threshold": 0.4}}  # fmt: skip
        settings |= {"beta": 0.1, "num_generations": 2, "max_completion_length": 6, "scale_rewards": "none"}
        return {"kind": "constrained", "trainer": stage, "model": model, "data": inputs["prompts"], "method": "xi",
                "rewards": rewards, "train": settings}  # fmt: skip
    data = {"sft": "sft", "prefer": "lists", "classifier": "texts"}.get(stage, "pairs")
    if stage == "prefer":
        settings["max_steps"] = 1  # so few lists: the ranks would share out a second batch's rest in their own way
    return {"kind": stage, "model": model, "data": inputs[data], "train": settings}


def launch(folder, stages, engine):
    """Trains the stages of a recipe in one launch of two ranks, and returns the steps by name."""
    recipe = write_recipe(folder, stages, wandb=False)
    return trained(recipe, config="cpu" if engine == "ddp" else engine, real=engine == "zero2")


def launch_each(folder, stages, monkeypatch):
    """Trains the stages as scripts/run.py does, each in a launch of two ranks, and returns the steps."""
    recipe = write_recipe(folder, stages, wandb=False)
    monkeypatch.setattr(launching, "launch", warm.launch)
    assert run.main([str(recipe), "--", "--num_processes", "2"]) == 0
    return Recipe.load(str(recipe), ranks=TWO).steps


@pytest.fixture(scope="module")
def alone(inputs, tmp_path_factory):
    """The steps of one process, by stage."""
    stages = {stage: block(stage, inputs, 4) for stage in (*STAGES, *ADAPTED, *OPTIMIZERS)}
    return run_recipe(tmp_path_factory.mktemp("alone"), stages)


@pytest.fixture(scope="module")
def ranks(inputs, tmp_path_factory):
    """engine -> the steps of its two ranks by name; they are made when they are first asked for."""
    launched = {}

    def get(engine):
        if engine not in launched:
            with_adapters = ADAPTED if engine in SHARDING else ()
            optimized = OF_ENGINE[engine]
            stages = {stage: block(stage, inputs, 2) for stage in (*STAGES, *with_adapters, *optimized)}
            for stage in () if engine == "ddp" else BY_TOKENS:  # with the same result
                del stages[stage]["train"]["per_device_train_batch_size"]
                stages[stage] |= {"batch_size": 4, "tokens_per_batch": 12}
            launched[engine] = launch(tmp_path_factory.mktemp(engine), stages | in_bf16(engine, inputs), engine)
        return launched[engine]

    return get


def in_bf16(engine, inputs):
    """The stages that DeepSpeed trains besides."""
    half = block("sft", inputs, 2, bf16=True)
    adapted = {**half, "model": {**half["model"], "use_peft": True, "lora_r": 4}}
    return {"zero2": {"half": half}, "zero3": {"half": half, "adapted": adapted}}.get(engine, {})


@pytest.mark.parametrize(("engine", "stage"), [*product(ENGINES, STAGES), *product(SHARDING, ADAPTED)])
def test_the_weights_are_those_of_the_reference(engine, stage, inputs, alone, ranks):
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    step, reference = ranks(engine)[stage], alone[stage]
    record = artifacts.read_done(step.dir)
    assert (record["distributed"], record["world_size"]) == (NAMES[engine], 2)
    shards = list((step.dir / "checkpoints").glob("checkpoint-*/global_step*/zero_pp_rank_1*model_states.pt"))
    assert bool(shards) == (engine == "zero3")  # only that engine splits parameters in files of their own
    ours, theirs = (load_file(each.output / "model.safetensors") for each in (step, reference))
    start = load_file(f"{inputs['model']}/model.safetensors")
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=TOLERANCE, rtol=0, msg=lambda m, n=name: f"{n}: {m}")
    moved = max((ours[name] - start[name]).abs().max().item() for name in ours if name in start)
    assert moved > 20 * TOLERANCE
    auto = AutoModelForSequenceClassification if stage in ("reward", "classifier") else AutoModelForCausalLM
    logits = [auto.from_pretrained(each.output)(torch.arange(8)[None] + 10).logits for each in (step, reference)]
    torch.testing.assert_close(*logits, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("engine", "stage"), [
    (engine, stage) for engine in ENGINES for stage in OF_ENGINE[engine]
])  # fmt: skip
def test_an_optimizer_by_its_class_is_that_of_the_reference(engine, stage, inputs, alone, ranks):
    """But for a few weights: the sign of a gradient near 0 is another where it is summed in another order."""
    ours, theirs = (load_file(each[stage].output / "model.safetensors") for each in (ranks(engine), alone))
    start = load_file(f"{inputs['model']}/model.safetensors")
    near = [(ours[name] - theirs[name]).abs() <= TOLERANCE for name in theirs]
    assert sum(map(torch.count_nonzero, near)) >= 0.999 * sum(value.numel() for value in near)
    assert all((ours[name] != start[name]).any() for name in ours if "proj" in name)


@pytest.mark.parametrize(("engine", "stage"), [("zero2", "half"), ("zero3", "half"), ("zero3", "adapted")])
def test_deepspeed_saves_in_float32_what_it_trains_in_bf16(engine, stage, inputs, alone, ranks):
    step = ranks(engine)[stage]
    assert json.loads((step.output / "config.json").read_text())["dtype"] == "float32"
    ours, theirs = (load_file(each.output / "model.safetensors") for each in (step, alone["sft"]))
    start = load_file(f"{inputs['model']}/model.safetensors")
    assert ours.keys() == theirs.keys()
    assert {value.dtype for value in ours.values()} == {torch.float32}
    trained = [name for name in ours if "q_proj" in name]
    assert all((ours[name] != ours[name].bfloat16()).float().mean() > 0.5 for name in trained)
    if stage == "half":  # as in float32, but for a start that is rounded
        for name in ours:
            torch.testing.assert_close(ours[name] - start[name], theirs[name] - start[name], atol=4e-3, rtol=0)


def test_a_reward_model_is_whole_where_the_policy_is_split(inputs, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    scorer = AutoModelForSequenceClassification.from_pretrained(inputs["model"], num_labels=1)
    scorer.save_pretrained(tmp_path / "scorer")
    AutoTokenizer.from_pretrained(inputs["model"]).save_pretrained(tmp_path / "scorer")
    stage = block("grpo", inputs, 2)
    stage["rewards"]["judge"] = {"kind": "reward_model", "path": str(tmp_path / "scorer"), "threshold": 0.0}
    step = launch(tmp_path, {"grpo": stage}, "zero3")["grpo"]
    assert artifacts.read_done(step.dir)["distributed"] == "DEEPSPEED"


@pytest.mark.parametrize("engine", ["ddp", *SHARDING])
def test_a_run_goes_on_from_its_checkpoint_by_every_optimizer(engine, inputs, ranks, tmp_path):
    others = ("sft", "ppo") if engine in SHARDING else ()
    stages = {stage: block(stage, inputs, 2) for stage in (*others, *OF_ENGINE[engine])}
    recipe = write_recipe(tmp_path, stages, wandb=False)
    for step in Recipe.load(str(recipe), ranks=TWO).steps:
        whole = ranks(engine)[step.name]
        shutil.copytree(whole.dir / "checkpoints" / "checkpoint-1", step.dir / "checkpoints" / "checkpoint-1")
    for stage, again in launch(tmp_path, stages, engine).items():
        assert artifacts.read_done(again.dir)["metrics"]["train/resumed_from"] == 1
        for file in ("model.safetensors", *(["critic/model.safetensors"] if stage == "ppo" else [])):
            ours, theirs = (load_file(step.output / file) for step in (again, ranks(engine)[stage]))
            for name in theirs:
                torch.testing.assert_close(ours[name], theirs[name], atol=1e-6 if engine in SHARDING else 0, rtol=0)


@pytest.mark.parametrize("engine", SHARDING)
def test_a_launch_that_is_killed_in_a_sharded_save_goes_on_from_the_one_before(engine, inputs, ranks, tmp_path):
    recipe = write_recipe(tmp_path, {"sft": block("sft", inputs, 2)}, wandb=False)
    (step,) = Recipe.load(str(recipe), ranks=TWO).steps
    first, second = (step.dir / "checkpoints" / f"checkpoint-{number}" for number in (1, 2))
    launched = two_ranks_started(recipe, config=engine)
    until(second.exists, pause=0.002)
    strike(launched, Blow("kill", 0), Random(0))
    assert (first / MARK).exists()
    assert not (second / MARK).exists()
    assert trained(recipe, config=engine)["sft"].dir == step.dir
    assert metrics_of(step)["train/resumed_from"] == 1
    ours, theirs = (load_file(each.output / "model.safetensors") for each in (step, ranks(engine)["sft"]))
    for name in theirs:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)


def test_a_step_under_one_engine_feeds_a_step_under_another(inputs, tmp_path, monkeypatch):
    """Through scripts/run.py, with a configuration for each stage."""
    stages = {
        "sft": {**block("sft", inputs, 2), "accelerate": "fsdp2"},
        "dpo": {**block("dpo", {**inputs, "model": "$sft"}, 2), "accelerate": "zero3"},
        "sample": {"model": {"model_name_or_path": "$dpo"}, "prompts": inputs["prompts"], "num_generations": 2,
                   "generate": {"max_new_tokens": 4}, "accelerate": "fsdp2"},
        "score": {"completions": "$sample", "rewards": {"brief": {"kind": "length", "target": 3}},
                  "accelerate": "zero2"},
        "ppo": {**block("ppo", {**inputs, "model": "$dpo"}, 2), "accelerate": "zero2"},
    }  # fmt: skip
    steps = launch_each(tmp_path, stages, monkeypatch)
    engines = [artifacts.read_done(step.dir)["distributed"] for step in steps]
    assert engines == ["FSDP", "DEEPSPEED", "MULTI_GPU", "DEEPSPEED", "DEEPSPEED"]  # sampling shards nothing


def macro(engine, inputs, **options):
    """The block of a macro, whose steps all have this engine."""
    return {"model": {"model_name_or_path": inputs["model"]}, "prompts": inputs["prompts"], "num_generations": 3,
            "rewards": {"brief": {"kind": "length", "target": 5, "unit": "characters"}},
            "generate": {"max_new_tokens": 6}, "accelerate": engine,
            "train": {**STEPS, "max_steps": 2, "per_device_train_batch_size": 2}, **options}  # fmt: skip


def test_apo_runs_as_a_whole_under_zero3(inputs, tmp_path, monkeypatch):
    """Every launch of two rounds, of which the second one starts from extrapolated weights."""
    stages = {"apo": macro("zero3", inputs, rounds=2, momentum=0.3, split_prompts=False)}
    steps = launch_each(tmp_path, stages, monkeypatch)
    assert [step.kind for step in steps].count("prefer") == 2
    records = [artifacts.read_done(step.dir) for step in steps]
    assert {(record["distributed"], record["world_size"]) for record in records} == {("DEEPSPEED", 2)}
    load_file(steps[-1].output / "model.safetensors")


def test_self_consuming_runs_as_a_whole_under_fsdp2(inputs, tmp_path):
    """The steps of a curated round, in one launch."""
    stages = {"self_consuming": macro("fsdp2", inputs, rounds=1, real=inputs["sft"], real_fraction=0.5)}
    steps = launch(tmp_path, stages, "fsdp2").values()
    trainings = [step for step in steps if step.kind == "sft"]
    assert len(trainings) == 1
    assert artifacts.read_done(trainings[0].dir)["distributed"] == "FSDP"
    assert {artifacts.read_done(step.dir)["world_size"] for step in steps} == {2}
    load_file(list(steps)[-1].output / "model.safetensors")
