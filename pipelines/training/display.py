"""What a training shows while it runs: the numbers that its kind names, in a bar, or in a table with a row for a log.

Where nobody watches, as in a log file, there is no bar, and a line for each tenth of a training.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainerState, TrainingArguments

from trimtab.pipelines.recording import tracking
from trimtab.pipelines.trainers.seams.trl import rewrite_logs

LINES = 10  # of a training, where no one watches
IN_BAR, IN_ROW = 3, 8  # numbers
BAR_FORMAT = "{desc} {bar} {n_fmt}/{total_fmt} {elapsed}<{remaining}{postfix}"
WIDTH = 10  # of a number in a row


class Display(TrainerCallback):
    """Shows the metrics that match one of the patterns `watches`; with `table`, those of each log as a row."""

    def __init__(self, name: str, watches: Sequence[str], *, table: bool = False):
        self.name, self.watches, self.table = name, watches, table
        self.is_training = False
        self.bar: Any = None
        self.evaluation: Any = None
        self.columns: list[str] = []
        self.told = 0  # the step of the last line

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.is_training, self.told = True, state.global_step
        if state.is_world_process_zero and not args.disable_tqdm:
            self.bar = _bar(self.name, state.max_steps, state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(1)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero or args.disable_tqdm or not hasattr(eval_dataloader, "__len__"):
            return
        if self.evaluation is None:
            self.evaluation = _bar(f"{self.name}, evaluation", len(eval_dataloader))
        self.evaluation.update(1)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.evaluation is not None:
            self.evaluation.close()
        self.evaluation = None

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        self.is_training = False
        if self.bar is not None:
            self.bar.close()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: Any,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # the summary, and the evaluation after a training, stand in the line that the step ends with
        if not state.is_world_process_zero or not self.is_training or "train_loss" in (logs or {}):
            return
        named = rewrite_logs(dict(logs or {}))
        logged = {key: value for key, value in named.items() if isinstance(value, int | float)}
        if os.environ.get(tracking.VERBOSE):
            self._line(state, logged)
            return
        chosen = matching(logged, self.watches)
        is_evaluation = any(key.startswith("eval/") for key in logged)
        shown = {key: logged[key] for key in chosen[: IN_ROW if self.table else IN_BAR]}
        if not shown:
            return
        if self.table and not is_evaluation:
            self._row(state, shown)
        elif self.bar is not None and not self.bar.disable and not is_evaluation:
            self.bar.set_postfix_str(_said(shown))
        elif is_evaluation or (state.global_step - self.told) * LINES >= state.max_steps:
            self._line(state, shown)

    def _line(self, state: TrainerState, numbers: Mapping[str, float]) -> None:
        self.told = state.global_step
        tqdm.write(f"    {self.name} {state.global_step}/{state.max_steps}  {_said(numbers)}")

    def _row(self, state: TrainerState, numbers: Mapping[str, float]) -> None:
        if list(numbers) != self.columns:
            self.columns = list(numbers)
            tqdm.write("    " + "  ".join(f"{label(key):>{WIDTH}}" for key in [self.name, *self.columns]))
        widths = [max(WIDTH, len(label(key))) for key in self.columns]
        cells = [f"{numbers[key]:>{width}.4g}" for key, width in zip(self.columns, widths, strict=True)]
        step = f"{state.global_step}/{state.max_steps}"
        tqdm.write("    " + "  ".join([f"{step:>{max(WIDTH, len(self.name))}}", *cells]))


def install(trainer: Any, name: str, watches: Sequence[str], *, table: bool) -> None:
    """Puts the display in the place of transformers' own; a notebook keeps its table."""
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    trainer.add_callback(Display(name, watches, table=table))


def matching(keys: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The keys that match a pattern, in the order of the patterns; each once."""
    known = list(keys)
    return list(dict.fromkeys(key for pattern in patterns for key in known if fnmatchcase(key, pattern)))


def label(key: str) -> str:
    """A metric's name in few words: `gold` of `train/rewards/gold/mean`, `eval loss` of `eval/loss`."""
    name = key.removeprefix("train/").replace("rewards/", "").removeprefix("completions/").removesuffix("/mean")
    return name.removeprefix("mean_").replace("/", " ")


def _said(numbers: Mapping[str, float]) -> str:
    return ", ".join(f"{label(key)} {value:.3g}" for key, value in numbers.items())


def _bar(name: str, total: int, begun: int = 0) -> Any:
    """A bar of one line, which leaves nothing behind and is none where there is no terminal."""
    text = f"    {name}"
    return tqdm(
        desc=text, total=total, initial=begun, leave=False, dynamic_ncols=True, disable=None, bar_format=BAR_FORMAT
    )
