"""Runs recipes inside the test process, through the same code as scripts/train.py."""

from pathlib import Path

import yaml

from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.running import runner


def write_recipe(folder: Path, stages: dict, **top) -> Path:
    path = Path(folder) / "recipe.yaml"
    path.write_text(yaml.safe_dump({"name": "test", "output_dir": str(Path(folder) / "runs"), **top, "stages": stages},
                                   sort_keys=False))  # fmt: skip
    return path


def refused(folder: Path, stages: dict, capsys) -> str:
    """What a run says that ends with a mistake in its recipe, before any step."""
    assert runner.train(str(write_recipe(folder, stages, wandb=False))) == 2
    return capsys.readouterr().err


def broken(folder: Path, stages: dict, capsys) -> str:
    """What a run says that a step of it ends."""
    assert runner.train(str(write_recipe(folder, stages, wandb=False))) == 1
    return capsys.readouterr().err


def run_recipe(folder: Path, stages: dict, *overrides: str, **top) -> dict[str, Step]:
    """Runs every step and returns them by name."""
    top.setdefault("wandb", False)
    path = str(write_recipe(folder, stages, **top))
    assert runner.train(path, overrides) == 0
    return {step.name: step for step in Recipe.load(path, overrides).steps}
