"""The command that launches a step, also as a person would type it, and the accelerate configuration that it names."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import yaml

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning import ranks
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.recipe import Launch, Recipe, Step
from trimtab.pipelines.planning.yaml_limits import Limited, read

SCRIPT = ROOT / "scripts" / "train.py"
STAGE = "--stage"
# by which several ranks work on one row: rows are packed, and have an attention of their own
ONE_ROW = tuple(f"parallelism_config_{size}" for size in ("cp_size", "sp_size", "tp_size"))
ACCELERATE = (sys.executable, "-m", "accelerate.commands.accelerate_cli")


def accelerate_config(step: Step, auto: str | None = None) -> Path:
    """The accelerate config file that a step is launched with: by name from accelerate_configs, or any path.

    `auto` is the name for a step that names none; by default what this machine has. Raises RecipeError.
    """
    name = step.accelerate
    if name == "auto":
        name = auto or ranks.Ranks().auto
    if path := ranks.config(name):
        return path
    known = sorted(path.stem for path in ranks.CONFIGS.glob("*.yaml"))
    raise RecipeError(
        f"no accelerate config {name!r}{suggest(name, known)} (known: {', '.join(known)}, or a path)",
        (*step.path, "accelerate"),
    )


def launch(step: Step, extra: Sequence[str] = ()) -> Launch:
    """What a step is launched on from here; `extra` are further words for accelerate."""
    _check_config(step)
    local = ranks.Ranks(words=tuple(extra))
    return Launch(local.of(step.accelerate), local.on_cpu(step.accelerate))


def _check_config(step: Step) -> None:
    """Raises RecipeError where the step's accelerate config is not YAML, or is for another machine."""
    file, place = accelerate_config(step), (*step.path, "accelerate")
    try:
        config = yaml.load(read(file), Limited)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise RecipeError(f"{file} is not readable as YAML: {error}", place) from None
    if not isinstance(config, dict):
        raise RecipeError(f"{file}: expected the keys of an accelerate config, got {config!r}", place)
    for key, size in (config.get("parallelism_config") or {}).items():
        if key in ONE_ROW and size not in (None, 1):
            raise RecipeError(f"{file}: {key}: ranks share out rows here, and none shares one with another", place)
    machine = config.get("compute_environment", "LOCAL_MACHINE")
    if machine != "LOCAL_MACHINE":
        raise RecipeError(f"{file}: compute_environment {machine!r}: steps are launched where they are planned", place)


def command(recipe: Recipe, step: Step, extra: Sequence[str] = (), auto: str | None = None) -> list[str]:
    """The words that launch one step with the interpreter that plans it, whatever PATH says.

    `auto` is as in accelerate_config, `extra` are further words for accelerate.
    """
    config = _from_here(accelerate_config(step, auto))
    launch = [*ACCELERATE, "launch", "--quiet", "--config_file", config, *extra]
    rebuild = ["--rebuild"] if step.damage else []
    return [*launch, _from_here(SCRIPT), recipe.path, *recipe.overrides, STAGE, step.name, *rebuild]


def together(launches: Sequence[Sequence[str]]) -> list[str]:
    """The words of one launch for the steps of several, which are the same but for the steps that they name."""
    place = list(launches[0]).index(STAGE)
    named = (words[place : place + 2] for words in launches)
    return [*launches[0][:place], *chain.from_iterable(named), *launches[0][place + 2 :]]


def without_stage(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a step's launch but for those that name the step."""
    place = list(words).index(STAGE)
    return (*words[:place], *words[place + 2 :])


def of_any_step(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a step's launch with STEP in the place of its name."""
    place = list(words).index(STAGE) + 1
    return (*words[:place], "STEP", *words[place + 1 :])


def typed(words: Sequence[str]) -> str:
    """A command as a line for a shell: with `accelerate` where that is this interpreter's, else with its path."""
    script = Path(sys.executable).with_name("accelerate")
    if not script.is_file():
        return shlex.join(words)
    on_path = shutil.which("accelerate")
    program = "accelerate" if on_path and Path(on_path) == script else _from_here(script)
    return shlex.join([program, *words[len(ACCELERATE) :]])


def _from_here(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
