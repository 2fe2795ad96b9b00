"""Blocks of a recipe for trainings of a few steps."""

import json

from run_steps import write_recipe

from trimtab.pipelines.planning.recipe import Recipe

TRAIN = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "gradient_checkpointing": False,
}
LORA = {"use_peft": True, "lora_r": 2, "lora_target_modules": "all-linear"}
BRIEF = {"kind": "length", "target": 1, "unit": "characters"}
LOOP_TRAIN = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "gradient_checkpointing": False,
}


def say(count):
    """Rows with prompts of three lengths."""
    return [{"prompt": [{"role": "user", "content": "say " + "a b " * (1 + i % 3)}]} for i in range(count)]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def apo(model, prompts, **options):
    """The stage `apo` with four short completions of a prompt and two steps of training in each round."""
    block = {
        "model": {"model_name_or_path": model},
        "prompts": prompts,
        "rewards": {"brief": BRIEF},
        "num_generations": 4,
        "generate": {"max_new_tokens": 6},
        "train": LOOP_TRAIN,
    }
    return {"apo": {**block, **options}}


def plan(folder, stages, *overrides):
    """The steps of a recipe by name."""
    return {step.name: step for step in Recipe.load(str(write_recipe(folder, stages)), overrides).steps}
