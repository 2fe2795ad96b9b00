"""What every command takes: a recipe, by position or as --config, and overrides."""

from __future__ import annotations

import argparse
from pathlib import Path

from trimtab.pipelines import ROOT


def parser(description: str | None, program: str | None = None) -> argparse.ArgumentParser:
    """A parser that knows the recipe and the overrides."""
    made = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("recipe", nargs="?", help="a YAML file, or a shipped recipe by its name: tiny, mistral-7b/apo")
    made.add_argument("overrides", nargs="*", metavar="key=value", help="stages.dpo.train.beta=0.2")
    made.add_argument("--trust", action="store_true", help="consent to the code that the recipe names, as it is now")
    made.add_argument("--config", help="the recipe, as users of trl type it")
    return made


def recipe(made: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, list[str]]:
    """The recipe's path and the overrides. The recipe stands first or after --config."""
    words = [word for word in (options.recipe, *options.overrides) if word]
    path = options.config or (words.pop(0) if words else None)
    if path is None:
        made.error("name a recipe, such as recipes/tiny.yaml")
    return shipped(path), words


def shipped(name: str) -> str:
    """The path of a recipe that comes with Trimtab, where `name` is no file but the name of one; else `name`."""
    path = ROOT / "recipes" / f"{name}.yaml"
    return str(path) if not Path(name).exists() and path.is_file() else name
