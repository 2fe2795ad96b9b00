"""What upstream refuses to construct is a mistake in the recipe, in upstream's words, before anything is launched."""

import os
from pathlib import Path

import pytest
from conftest import PAIR_ROWS, SFT_ROWS
from run_steps import write_recipe

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Launch, Recipe
from trimtab.pipelines.running import slurm

ROWS = {"sft": SFT_ROWS, "dpo": PAIR_ROWS, "constrained": [{"prompt": row["prompt"]} for row in SFT_ROWS]}
LENGTH = {"brief": {"kind": "length", "target": 3, "threshold": 0.5}}
REWARDS = {"sft": {}, "dpo": {}, "constrained": {"rewards": LENGTH}}
ON_CPU = Launch(1, on_cpu=True)
TRAIN = {"sft": {}, "dpo": {}, "constrained": {"beta": 0.1, "num_generations": 4}}


@pytest.fixture
def refused(tmp_path, write, model):
    """The mistakes of one stage: kind, keys of `train`, keys of `model`, and what it will be launched on."""

    def refused(kind, train=(), of_model=(), launch=ON_CPU, **block):
        rows = write(f"{kind}.jsonl", ROWS[kind])
        stage = {"model": {"model_name_or_path": model, **dict(of_model)}, "data": rows, **REWARDS[kind], **block}
        path = write_recipe(tmp_path, {kind: {**stage, "train": {**TRAIN[kind], **dict(train)}}})
        recipe = Recipe.load(str(path))
        before = dict(os.environ)
        try:
            preflight.check(recipe, recipe.steps, launch=lambda step: launch)
        except RecipeError as error:
            return [str(mistake).removeprefix(f"{path}:") for mistake in error.mistakes]
        finally:
            assert dict(os.environ) == before
        return []

    return refused


BEST = {"load_best_model_at_end": True, "save_strategy": "steps", "eval_strategy": "epoch"}


@pytest.mark.parametrize(
    ("kind", "train", "message"),
    [
        ("sft", {"warmup_steps": -1}, "train.warmup_steps: Got warmup_steps = -1"),
        ("sft", {"bf16": True, "fp16": True}, "train.fp16: needs a GPU, and the step is launched on CPUs"),
        ("sft", {"lr_scheduler_type": "reduce_lr_on_plateau"}, "train.lr_scheduler_type: lr_scheduler_type reduce_lr"),
        ("sft", {"logging_steps": 0}, "train.logging_steps: logging strategy"),
        ("sft", {"dataloader_prefetch_factor": 2}, "train.dataloader_prefetch_factor: --dataloader_prefetch_factor"),
        ("sft", {"deepspeed": "no/such/file.json"}, "train"),
        ("dpo", {"report_to": ["wandb", "tensorbord"]}, "train.report_to: tensorbord: tensorbord is not supported"),
        ("constrained", {"per_device_train_batch_size": 6}, "train.num_generations: generation_batch_size (6)"),
        ("constrained", {"num_generations": 1}, "train: GRPO requires at least 2 generations"),
        ("constrained", {"auto_find_batch_size": True}, "train.auto_find_batch_size: auto_find_batch_size is not"),
    ],
)
def test_arguments_that_upstream_refuses(kind, train, message, refused):
    (mistake,) = refused(kind, train)
    assert f"stages.{kind}.{message}" in mistake


def test_the_best_model_needs_an_evaluation_at_each_save(refused, write):
    held_out = write("held_out.jsonl", [{"prompt": "say c", "completion": "c"}])
    (line,) = refused("sft", BEST, eval_data=held_out)
    assert "requires the save and eval strategy to match" in line


def test_the_batch_is_that_of_all_processes(refused):
    small = {"per_device_train_batch_size": 2}
    assert "(2) must be divisible by num_generations (4)" in refused("constrained", small)[0]
    assert refused("constrained", small, launch=Launch(2, on_cpu=True)) == []
    assert refused("constrained", small, launch=None) == []


def test_half_precision_is_refused_only_where_the_launch_has_no_gpu(refused):
    assert refused("sft", {"fp16": True}, launch=Launch(8, on_cpu=False)) == []
    assert refused("sft", {"bf16": True}) == []


def test_a_tracker_that_is_not_installed(refused, monkeypatch):
    from transformers.integrations import integration_utils

    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    (line,) = refused("sft", {"report_to": ["wandb", "tensorboard"]})
    assert "stages.sft.train.report_to: tensorboard: TensorBoardCallback requires tensorboard to be installed" in line


@pytest.mark.parametrize("kind", ["sft", "dpo"])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["q_proj", "lm_head"], "Applying a PEFT adapter to `lm_head` is not supported"),
        (["wq"], "Target modules"),
    ],
)
def test_adapters_that_find_no_place(kind, targets, message, refused):
    (line,) = refused(kind, of_model={"use_peft": True, "lora_target_modules": targets})
    assert f"stages.{kind}.model.lora_target_modules: {message}" in line


def test_adapters_that_find_one(refused):
    assert refused("sft", of_model={"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}) == []
    assert refused("sft", of_model={"use_peft": True, "lora_target_modules": "all-linear"}) == []


def test_the_assistants_words_need_marks_in_the_template(refused, tmp_path):
    template = tmp_path / "plain.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] + '<|end|>' }}{% endfor %}")
    (line,) = refused("sft", {"assistant_only_loss": True, "chat_template_path": str(template)})
    assert "stages.sft.train.assistant_only_loss: " in line
    assert refused("sft", {"assistant_only_loss": True}) == []  # the model's own template has them


def test_a_chat_template_that_is_nowhere(refused):
    (line,) = refused("sft", {"chat_template_path": "chatml"})
    assert "stages.sft.train.chat_template_path: chatml is neither a file nor a model with a tokenizer: give a" in line
    assert Path(line.rpartition(" ")[2], "llama3.jinja").is_file()


def test_several_are_told_at_once(refused):
    lines = refused("sft", {"warmup_steps": -1, "report_to": "tensorbord", "save_total_limit": 1})
    places = {line.split(": ")[1].rpartition(".")[2] for line in lines}
    assert places == {"warmup_steps", "report_to", "save_total_limit"}


def test_a_job_says_how_many_processes_it_has():
    assert slurm.launched_on(["--nodes=2", "--gpus-per-node=a100:8"]) == Launch(16, on_cpu=False)
    assert slurm.launched_on(["--nodes=2"]) is None
