"""Kind `last_good`: the model of the last round that a loop's monitors let pass.

    last_good: {models: [$sft, $loop-1, $loop-2], monitors: [$loop-1-monitor, $loop-2-monitor, $loop-3-monitor]}

A monitor with `on_limit: stop` that meets its limit leaves a note instead of an error, and every step that comes of it
passes the note on without working. This stage is where the notes end: it says which round was the last good one, and
why, and its artifact is that round's model.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.stops import stopped
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class LastGood(Stage):
    """`models` begin with the one that the loop began with; the n-th of `monitors` has watched the n-th of them."""

    models: list[str]
    monitors: list[str]

    takes_stopped: ClassVar[bool] = True

    def check(self, step: Step) -> None:
        if not self.models:
            message = "name the model that the loop began with, and those of its rounds"
            raise RecipeError(message, (*step.path, "models"))
        if not 0 <= len(self.models) - len(self.monitors) <= 1:
            raise RecipeError(
                f"{len(self.monitors)} monitors for {len(self.models)} models: each watches one of them, in their "
                "order, and only the last may have none",
                (*step.path, "monitors"),
            )

    def work(self, known: Known) -> Work:
        return Work("files", leaves=known.model(self.models[0]))

    def makes(self) -> str:
        return self.models[0]

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        last_good, reason = self._last_good()
        folder = Path(self.models[last_good]).expanduser()
        if not folder.is_dir():
            raise RecipeError(f"no round was good, and the start is no folder to return: {reason}", step.path)
        if PartialState().is_main_process:
            if reason is not None:
                print(f"    the loop has ended early: {reason}. Its last good round is {last_good}", flush=True)
            shutil.copytree(folder, step.output, dirs_exist_ok=True)
        return {"round": last_good, "rounds": len(self.models) - 1}

    def _last_good(self) -> tuple[int, str | None]:
        """The number of the last model that was let pass, and why the one after it was not, None where all were."""
        for number, monitor in enumerate(self.monitors):
            if reason := stopped(Path(monitor)):
                return max(0, number - 1), reason
        return len(self.models) - 1, None
