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

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.stops import stopped
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class LastGood(Stage):
    """`models` begin with the one that the loop began with; the n-th of `monitors` has watched the n-th of them."""

    models: list[str]
    monitors: list[str]

    takes_stopped: ClassVar[bool] = True

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        notes = [stopped(Path(monitor)) for monitor in self.monitors]
        bad = next((n for n, note in enumerate(notes) if note), None)
        chosen = len(self.models) - 1 if bad is None else max(0, bad - 1)
        folder = Path(self.models[chosen]).expanduser()
        if not folder.is_dir():
            raise RecipeError(f"no round was good, and the start is no folder to return: {notes[bad]}", step.path)
        if PartialState().is_main_process:
            if bad is not None:
                print(f"    the loop has ended early: {notes[bad]}. Its last good round is {chosen}", flush=True)
            shutil.copytree(folder, step.output, dirs_exist_ok=True)
        return {"round": chosen, "rounds": len(self.models) - 1}
