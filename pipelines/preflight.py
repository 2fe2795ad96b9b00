"""Everything that can be known to be wrong before anything is launched, and the table of what will be launched."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines import artifacts, plugins
from pipelines.errors import OWNED, RecipeError, suggest
from pipelines.recipe import Recipe, Step

CONFIGS = Path(__file__).resolve().parents[1] / "accelerate_configs"


def check(recipe: Recipe, steps: Iterable[Step]) -> None:
    """Keys and types of every step first, then files, columns, rows and tokens. Raises RecipeError; writes nothing."""
    steps = [step for step in steps if not step.done]
    try:
        for step in steps:
            if step.accelerate != "auto":
                accelerate_config(step)
        for step, stage in [(step, build(step, dry=True)) for step in steps]:
            if not artifacts.reasons(step.inputs):  # what a loop has stopped is not made, and needs no inputs
                stage.check(step)
    except RecipeError as error:
        raise recipe.document.locate(error) from error.__cause__


def require_inputs(steps: Iterable[Step]) -> None:
    """Raises RecipeError when a step refers to one that is neither done nor among those to be run."""
    steps = list(steps)
    for step in steps:
        for source in () if step.done else step.waiting:
            if source not in steps:
                raise RecipeError(f"{step.name} needs {source.name}, which is not done: run {source.name} first")


def build(step: Step, *, dry: bool = False) -> Any:
    """The step's stage, with its options. With `dry`, training arguments are not constructed (see plugins.build)."""
    cls = plugins.find("pipelines.stages", step.kind, step.path)
    options = step.options
    if not dry and "train" in cls.__dataclass_fields__:
        from pipelines.training import arguments

        checked = plugins.check(cls, options, step.path)
        try:
            return plugins.instance(cls, {**checked, "train": arguments(checked.get("train", {}), step)})
        except ValueError as error:  # trl's own check of settings that have to fit each other
            raise RecipeError(str(error), (*step.path, "train")) from error
    return plugins.build(cls, options, step.path, dry=dry)


def accelerate_config(step: Step, auto: str | None = None) -> Path:
    """The accelerate config file that a step is launched with: by name from accelerate_configs, or any path.

    `auto` is the name for a step that names none; by default what this machine has.
    """
    name = step.accelerate
    if name == "auto":
        name = auto or _devices()
    for path in (CONFIGS / f"{name}.yaml", Path(name).expanduser()):
        if path.is_file():
            return path
    known = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    raise RecipeError(
        f"no accelerate config {name!r}{suggest(name, known)} (known: {', '.join(known)}, or a path)",
        (*step.path, "accelerate"),
    )


def command(recipe: Recipe, step: Step, extra: Sequence[str] = (), auto: str | None = None) -> list[str]:
    """The words that a person would type to run one step; `auto` is as in accelerate_config."""
    config = accelerate_config(step, auto)
    config = config.relative_to(Path.cwd()) if config.is_relative_to(Path.cwd()) else config
    script = Path(__file__).resolve().parents[1] / "scripts" / "train.py"
    script = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    launch = ["accelerate", "launch", "--quiet", "--config_file", str(config), *extra]
    return [*launch, str(script), recipe.path, *recipe.overrides, "--stage", step.name]


def table(
    recipe: Recipe, steps: Sequence[Step], extra: Sequence[str] = (), auto: str | None = None, *, verbose: bool = False
) -> str:
    """The plan: step, kind, fingerprint, done or pending, and the command; with `verbose` every key and its origin."""
    rows = [(s.name, s.kind, s.fingerprint, "done" if s.done else "pending") for s in steps]
    widths = [max(len(row[i]) for row in (*rows, ("step", "kind", "fingerprint", "state"))) for i in range(4)]
    line = "  ".join(f"{{:{width}}}" for width in widths)
    lines = [line.format("step", "kind", "fingerprint", "state") + "  command"]
    for step, row in zip(steps, rows, strict=True):
        lines.append(line.format(*row) + "  " + ("" if step.done else shlex.join(command(recipe, step, extra, auto))))
        if verbose:
            lines += [f"    {key} = {value!r}  ({origin})" for key, value, origin in resolved(recipe, step)]
    done = sum(step.done for step in steps)
    return "\n".join([*lines, f"{len(steps)} steps, {done} done, {len(steps) - done} pending, in {recipe.run}"])


def resolved(recipe: Recipe, step: Step) -> list[tuple[str, Any, str]]:
    """(key, value, origin) of every option of a step; origin is the default's class, a line, or an override."""
    cls = plugins.find("pipelines.stages", step.kind, step.path)
    rows: list[tuple[str, Any, str]] = []

    def walk(value: Any, hint: Any, path: tuple[str, ...]) -> None:
        hint = plugins.bare(hint)
        if dataclasses.is_dataclass(hint) and isinstance(value, dict):
            hints = plugins.hints(hint)
            for field in dataclasses.fields(hint):
                here = (*path, field.name)
                if field.name in value:
                    walk(value[field.name], hints[field.name], here)
                elif field.init and field.name not in OWNED:
                    rows.append((".".join(here), plugins.default(field), f"default of {hint.__name__}"))
        elif isinstance(value, dict) and value:
            for key, item in value.items():
                walk(item, None, (*path, str(key)))
        else:
            prefixes = ((*step.path, *path[:end]) for end in range(len(path), 0, -1))  # `data: hub/name` has no inside
            origin = next((recipe.document.origins[p] for p in prefixes if p in recipe.document.origins), None)
            rows.append((".".join(path), value, origin or f"stage {step.stage!r}"))

    walk(plugins.check(cls, step.options, step.path), cls, ())
    return rows


def _devices() -> str:
    import torch

    count = torch.cuda.device_count()
    return "cpu" if count == 0 else "single" if count == 1 else "ddp"
