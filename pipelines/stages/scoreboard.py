"""Kind `scoreboard`: what `best_of` has found of policies on tasks, as one table with means over tasks.

    scoreboard: {tasks: {gsm8k: {sft: $sft-gsm8k-best, grpo: $grpo-gsm8k-best}, mbpp: {...}}}

Metrics are `POLICY/TASK/NUMBER/mean` and `stderr`, a number being `greedy`, `one`, and `chosen`, `voted` and `passing`
of the largest n of a task. `POLICY/all/NUMBER` is the mean over the tasks that have it, each counting once, with the
error that follows from theirs. Artifact: `scoreboard.json` and `summary.txt`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

OF_N = ("voted", "chosen", "passing")
NUMBERS = ("greedy", "one", *OF_N)
Number = tuple[float, float]  # a mean and its standard error
Board = dict[str, dict[str, dict[str, Number]]]  # policy -> task -> number


@dataclass(kw_only=True)
class Scoreboard(Stage):
    """`tasks` has steps of kind `best_of` by task and policy."""

    tasks: dict[str, dict[str, str]]

    shows: ClassVar[Shows] = Shows(results=("*/all/greedy/mean", "*/all/chosen/mean"), compares=("*/all/*/mean",))

    def check(self, step: Step) -> None:
        if len({tuple(policies) for policies in self.tasks.values()}) > 1:
            raise RecipeError("every task has to have the same policies, in one order", (*step.path, "tasks"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        board: Board = {}
        for task, policies in self.tasks.items():
            for policy, folder in policies.items():
                record = artifacts.read_done(Path(folder).parent)
                board.setdefault(policy, {})[task] = _numbers(record["metrics"] if record else {})
        for of_tasks in board.values():
            of_tasks["all"] = _over_tasks(list(of_tasks.values()))
        if PartialState().is_main_process:
            (step.output / "scoreboard.json").write_text(json.dumps(board, indent=1))
            (step.output / "summary.txt").write_text(_summary(board))
        metrics: Metrics = {}
        for policy, of_tasks in board.items():
            for task, numbers in of_tasks.items():
                for name, (mean, stderr) in numbers.items():
                    metrics |= {f"{policy}/{task}/{name}/mean": mean, f"{policy}/{task}/{name}/stderr": stderr}
        return metrics


def _numbers(metrics: Mapping[str, float]) -> dict[str, Number]:
    """The numbers of one policy on one task, of the largest n."""
    sizes = [int(key.split("/")[1]) for key in metrics if key.startswith("passing/") and key.endswith("/mean")]
    found: dict[str, Number] = {}
    for name in NUMBERS:
        key = f"{name}/{max(sizes, default=1)}" if name in OF_N else name
        if f"{key}/mean" in metrics:
            found[name] = metrics[f"{key}/mean"], metrics[f"{key}/stderr"]
    return found


def _over_tasks(tasks: Sequence[Mapping[str, Number]]) -> dict[str, Number]:
    """The mean over tasks, and its error where those of the tasks are independent."""
    means: dict[str, Number] = {}
    for name in NUMBERS:
        there = [numbers[name] for numbers in tasks if name in numbers]
        if there:
            variance = sum(stderr**2 for _, stderr in there)
            means[name] = sum(mean for mean, _ in there) / len(there), math.sqrt(variance) / len(there)
    return means


def _summary(board: Board) -> str:
    """A line for each policy and task, in columns."""
    table = [["policy", "task", *NUMBERS]]
    for policy, of_tasks in board.items():
        for task, numbers in of_tasks.items():
            shown = [numbers.get(name) for name in NUMBERS]
            cells = ["-" if number is None else f"{number[0]:.3f} +- {number[1]:.3f}" for number in shown]
            table.append([policy, task, *cells])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in table
    ]
    return "\n".join(lines) + "\n"
