"""Kind `extrapolate`: the model new + momentum (new - previous), from which an accelerated round starts.

    extrapolate: {new: $round-2, previous: $round-1, momentum: 0.3}

No data and no accelerator: it reads and writes files, in float32 (see pipelines/algorithms/extrapolation.py).
`previous` is the model that the round before has trained, not its extrapolation; of the first round it is what that
started from.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.forecasting.setting import Setting
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning import adapters, kinds
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import ModelName
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Extrapolate(Stage):
    """`new` and `previous` are safetensors models of one architecture, folders or names on the Hub.

    0 <= `momentum` < 1.
    """

    new: ModelName
    previous: ModelName
    momentum: float = 0.3

    shows: ClassVar[Shows] = Shows(results=("relative_step", "step_norm"))

    def check(self, step: Step) -> None:
        if not 0 <= self.momentum < 1:
            expected = f"expected a number of at least 0 and below 1, got {self.momentum}"
            raise RecipeError(f"{expected}: at 1 rounds add up without end", (*step.path, "momentum"))
        if self.new == self.previous:
            raise RecipeError("is `new` itself, so that there is no step to extrapolate", (*step.path, "previous"))
        folders = {}
        for key in ("new", "previous"):
            folder = Path(getattr(self, key)).expanduser()
            if step.pending(str(folder)) or _on_hub(getattr(self, key)) or adapters.find(str(folder)):
                continue
            if not folder.is_dir():
                raise RecipeError(f"no such folder: {folder}: a model's folder or $stage", (*step.path, key))
            folders[key] = folder
        if folders:
            _check_weights(folders, step)
        if len(folders) < 2:
            self._check_sizes(step)

    def _check_sizes(self, step: Step) -> None:
        """Raises RecipeError for models, some still to be made, of which it is known that their sizes differ."""
        from trimtab.pipelines.forecasting.known import Known, Memory

        if not (step.pending(self.new) or step.pending(self.previous)):
            return
        heads = {key: self._head(step, key) for key in ("new", "previous")}
        if set(heads.values()) == {"words", "score"}:
            policy, scorer = sorted(heads, key=lambda key: heads[key] == "score")
            message = f"is a reward model, and `{policy}` a policy: they have no step in common"
            raise RecipeError(message, (*step.path, scorer))
        known = Known(step, Setting(), Memory())
        new, previous = known.model(self.new), known.model(self.previous)
        if not known.assumed and new.linears != previous.linears:
            sizes = f"{previous.parameters} parameters, and `new` one of {new.parameters}"
            raise RecipeError(f"is a model of another architecture: of {sizes}", (*step.path, "previous"))

    def _head(self, step: Step, key: str) -> str | None:
        """The head of a model that a step above has still to make, None of any other."""
        maker = step.maker(getattr(self, key))
        return None if maker is None or maker.done else kinds.find(kinds.STAGES, maker.kind).head

    def work(self, known: Known) -> Work:
        return Work("files", leaves=known.model(self.new))

    def folders(self) -> Collection[str]:
        return ()

    def makes(self) -> str:
        return self.new

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.algorithms.extrapolation import extrapolate

        if not PartialState().is_main_process:
            return {}  # the others wait for it where the step is published
        new, previous = (_folder(name) for name in (self.new, self.previous))
        try:
            return extrapolate(new, previous, step.output, self.momentum)
        except ValueError as error:  # what only the numbers show, such as a step lost in rounding
            raise RecipeError(str(error), step.path) from error


def _check_weights(folders: Mapping[str, Path], step: Step) -> None:
    """Raises RecipeError for folders, by their keys, that are no models in safetensors, or two that do not match."""
    from trimtab.pipelines.algorithms.extrapolation import match
    from trimtab.pipelines.algorithms.weights import Weights

    models = []
    for key, folder in folders.items():
        try:
            models.append(Weights(folder))
        except (OSError, ValueError) as error:
            raise RecipeError(str(error), (*step.path, key)) from error
    if len(models) == 2:
        try:
            match(*models)
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "previous")) from error


def _on_hub(name: str) -> bool:
    """Whether a name can only be the Hub's: `org/model`, and no folder here."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None and not Path(name).exists()


def _folder(name: str) -> Path:
    if not _on_hub(name):
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors", "*.json"]))
