"""Stages. A new one is one new file here: the YAML word is the file name, its fields are the YAML keys.

    # pipelines/stages/kto.py, used as `kind: kto`
    @dataclass(kw_only=True)
    class Kto(Stage):
        model: trl.ModelConfig
        data: Data
        eval_data: Data | None = None
        train: trl.KTOConfig

        def run(self, step):
            return training.fit(trl.KTOTrainer, self, step)

Modules here import trl's names through `trl.` (it loads lazily), so that planning a recipe imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pipelines.recipe import Step

SAMPLING = ("generate", "batch_size", "engine", "vllm")  # the keys of `sample` that a stage made of stages hands on


@dataclass(kw_only=True)
class Stage:
    """One kind of step. It reads its inputs and leaves one artifact in `step.output`."""

    takes_stopped: ClassVar[bool] = False  # whether it works on after a loop's stop (artifacts.stop), as a report does

    @classmethod
    def expand(
        cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]
    ) -> Iterable[tuple[str, str, dict[str, Any]]]:
        """The steps that the stage stands for, as (step name, kind, options); `$name` means the last of them. Among
        the options, `seed_offset` is added to the seed: the repeats of one thing differ in it.

        `above` holds the names that may be referred to. A plain stage is one step; a macro gives several.
        """
        yield name, kind, options

    def check(self, step: Step) -> None:
        """Looks at the inputs that exist already, before anything expensive. Raises RecipeError."""

    def run(self, step: Step) -> dict[str, float]:
        """Writes the artifact into the folder `step.output` and returns the step's metrics. Every rank calls it."""
        raise TypeError(f"{type(self).__name__} is a macro: it has no step of its own")
