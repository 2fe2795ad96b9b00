"""What is taken of models and folders that steps above have still to make: that they will be there, with that head.

Columns of rows have their own look (pipelines/data/promises.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.errors import Mistakes, RecipeError, suggest
from trimtab.pipelines.planning.recipe import Step

Place = tuple[str, ...]


class Ahead:
    """The stages of a recipe's steps, by their folders."""

    def __init__(self, stages: Mapping[Path, Any]):
        self.stages = stages

    def check(self, step: Step) -> None:
        """Raises RecipeError for folders that no step will leave, and models that will have another head."""
        mistakes = Mistakes()
        for place, value, of_reward in _values(step.options, step.path, None):
            with mistakes.collected():
                self._check_folder(step, place, value)
                self._check_head(step, place, value, of_reward)
        mistakes.raise_any()

    def _check_folder(self, step: Step, place: Place, value: str) -> None:
        maker = step.maker(value)
        folders = None if maker is None or maker.done else _folders(self.stages.get(maker.dir))
        if maker is None or folders is None:
            return
        parts = Path(value).relative_to(maker.output).parts
        if parts and "." not in parts[0] and parts[0] not in folders:  # a file is looked for when it is read
            there = f"it will have: {', '.join(folders)}" if folders else "it will have none"
            raise RecipeError(f"{maker.name} has no folder {parts[0]!r}{suggest(parts[0], folders)} ({there})", place)

    def _check_head(self, step: Step, place: Place, value: str, of_reward: Any) -> None:
        maker = step.maker(value)
        if maker is None or maker.done or Path(value) != maker.output:
            return
        head, wanted = getattr(self.stages.get(maker.dir), "head", None), None
        if of_reward is not None and place[-1] == "path":
            wanted = getattr(of_reward, "needs", None)
        elif (
            place[-2:] == ("model", "model_name_or_path")
            and getattr(self.stages.get(step.dir), "head", None) == "words"
        ):
            wanted = "words"
        if wanted == "score" and head == "words":
            raise RecipeError(
                f"{maker.name} is a model without a head that scores: a stage of kind reward trains one", place
            )
        if wanted == "words" and head == "score":
            raise RecipeError(f"{maker.name} is a reward model, which has no head for words: name the policy", place)


def _folders(stage: Any) -> list[str] | None:
    return None if stage is None or stage.folders() is None else list(stage.folders())


def _values(value: Any, place: Place, of_reward: Any) -> Iterator[tuple[Place, str, Any]]:
    """(place, text, class of the reward in whose block it stands) of every string in the options of a step."""
    if isinstance(value, str):
        yield place, value, of_reward
    elif isinstance(value, Mapping):
        is_reward = isinstance(value.get("kind"), str) and value["kind"] in kinds.words(kinds.REWARDS)
        reward = kinds.find(kinds.REWARDS, value["kind"]) if is_reward else None
        for key, item in value.items():
            yield from _values(item, (*place, str(key)), reward)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _values(item, (*place, str(index)), None)
