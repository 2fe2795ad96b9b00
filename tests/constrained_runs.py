"""Constrained trainings of a few steps, and going on from any of their checkpoints."""

import shutil

from outputs import metrics_of
from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking
from trimtab.scripts import train

TRAIN = {
    "beta": 0.1,
    "scale_rewards": "none",
    "num_generations": 4,
    "max_completion_length": 8,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "max_steps": 7,
    "logging_steps": 1,
    "save_steps": 1,
    "gradient_checkpointing": False,
}
REWARDS = {
    "brief": {"kind": "length", "target": 5, "unit": "characters", "threshold": 0.5},
    "as": {"kind": "pattern", "regex": "a", "count": True, "threshold": 0.4},
}
# settings of `train` by which an optimizer step stands in different places of a rollout
SETTINGS = {
    "plain": {},
    "buffered": {"num_iterations": 2, "steps_per_generation": 3},
    "accumulated": {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "per_device_train_batch_size": 4},
}


def constrained(model, prompts, **options):
    """The stage `constrained` on two rewards; `train` in the options is added to TRAIN."""
    arguments = {**TRAIN, **options.pop("train", {})}
    block = {"model": {"model_name_or_path": model}, "data": prompts, "method": "xi", "rewards": REWARDS}
    return {"constrained": {**block, **options, "train": arguments}}


def logged(step):
    """The rows of a step's metrics.jsonl that are a training step's."""
    return [row for row in tracking.read(step.dir / "metrics.jsonl") if "train/loss" in row]


def resumed(folder, source, number, ranks=None):
    """A run in `folder` that has only the checkpoint `number` of the step `source`, before it is started."""
    steps = {step.name: step for step in Recipe.load(str(folder / "recipe.yaml"), ranks=ranks).steps}
    target = steps[source.name].dir / "checkpoints"
    target.mkdir(parents=True)
    shutil.copytree(source.dir / "checkpoints" / f"checkpoint-{number}", target / f"checkpoint-{number}")
    return steps[source.name]


def run_again(tmp_path, block, whole, number):
    """The step of a run of its own that went on from the checkpoint `number` of the step `whole`."""
    folder = tmp_path / str(number)
    folder.mkdir()
    write_recipe(folder, block, output_dir=str(folder / "runs"))
    again = resumed(folder, whole, number)
    assert train.main([str(folder / "recipe.yaml")]) == 0
    assert metrics_of(again)["train/resumed_from"] == number
    return again
