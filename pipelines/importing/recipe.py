"""Sources in, a recipe out: translated, chained, planned, and without what the planner refuses."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.pipelines.importing import chain, formats, sources, writing
from trimtab.pipelines.importing.draft import Draft
from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe


@dataclass(frozen=True)
class Imported:
    """A recipe made of others: its text, the account of every key, and what the planner still refuses."""

    stages: dict[str, Draft]
    text: str
    mistakes: tuple[str, ...]

    @property
    def table(self) -> str:
        """What became of every key, one a line."""
        return writing.table(self.stages)


def convert(words: Sequence[str], line: Sequence[str] = ()) -> Imported:
    """The recipe that files, quoted command lines or one more `line` come to. Raises RecipeError for no such thing."""
    gathered = sources.gather(words, line)
    translated = [formats.translate(source) for source in gathered]
    stages = chain.linked([draft for _, drafts in translated for draft in drafts])
    programs = ", ".join(dict.fromkeys(word for word, _ in translated))
    origins = ", ".join(dict.fromkeys(source.name for source in gathered))
    title = f"Imported from {origins} (keys of {programs}). What the names below mean: docs/importing.md"
    while True:  # each time without a key more
        text = writing.text(title, stages)
        refused = _refused(text)
        taken_back = [_taken_back(stages, error) for error in refused]
        if not any(taken_back):
            return Imported(stages, text, tuple(f"{'.'.join(error.path)}: {error.message}" for error in refused))


def _refused(text: str) -> list[RecipeError]:
    """What a plan without a hub says against a recipe."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "imported.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            recipe = Recipe.load(str(path), [f"output_dir={folder}"])
            preflight.check(recipe, recipe.steps, without_hub=True)
        except RecipeError as error:
            return list(error.mistakes)
    return []


def _taken_back(stages: dict[str, Draft], error: RecipeError) -> bool:
    """Takes a key back that the planner refuses, with its reason; whether there was one."""
    if len(error.path) < 4 or error.path[0] != "stages" or error.path[1] not in stages:
        return False
    draft = stages[error.path[1]]
    parent, key = ".".join(error.path[2:-1]), error.path[-1]
    if key not in draft.at(parent) or parent.split(".")[0] not in ("train", "model") or key == "model_name_or_path":
        return False
    draft.refuse(f"{parent}.{key}", error.message)
    return True
