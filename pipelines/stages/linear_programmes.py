"""Kind `linear_programmes`: optimisation problems in words, with their five elements, a program, and its tests.

    programmes: {kind: linear_programmes, sft: 3000, problems: 1000, test: 200}

`$programmes/sft` has rows to learn in three instructions, as LLMOPT (arXiv 2410.13213) has them: the five elements of
a problem (sets, parameters, variables, objective, constraints), the program of five elements, and both of a problem.
`$programmes/problems` has prompts of the third instruction with three columns: `answer`, the optimum; `test_list`, by
which `{kind: code, packages: true}` verifies a program that leaves its optimum in `answer`; and `checks`, which only
ask that there is one: what a loop of self-correction may know. The optimum is scipy's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.data import linear_programmes
from trimtab.pipelines.data.forms import said
from trimtab.pipelines.data.linear_programmes import Programme
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

FORMULATE = "Write the five elements of this problem: sets, parameters, variables, objective and constraints."
PROGRAM = "Write a Python program for these five elements of a problem, which leaves the optimum in `answer`."
SOLVE = "Write the five elements of this problem, and then a Python program that leaves the optimum in `answer`."
CHECK = "assert abs(answer) < float('inf')"


@dataclass(kw_only=True)
class LinearProgrammes(Stage):
    """`sft` and `problems` are problems to learn from and to train on, `test` those of either test file."""

    sft: int = 3000
    problems: int = 1000
    test: int = 200

    splits: ClassVar[tuple[str, ...]] = ("train", "test")
    shows: ClassVar[Shows] = Shows(results=("rows/sft/train", "rows/problems/train"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "sft": 8, "problems": 8, "test": 4}

    def check(self, step: Step) -> None:
        for key in ("sft", "problems", "test"):
            if getattr(self, key) < 1:
                raise RecipeError(f"must be at least 1, got {getattr(self, key)}", (*step.path, key))
        super().check(step)

    def work(self, known: Known) -> Work:
        return Work(handled=3 * self.sft + self.problems + 4 * self.test)

    def folders(self) -> Collection[str]:
        return ("sft", "problems")

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        learned = folder == "sft"
        count = self.test if split.startswith("test") else self.sft if learned else self.problems
        columns = ("prompt", "completion") if learned else ("prompt", "answer", "test_list", "checks")
        return Promise(3 * count if learned else count, columns=columns, is_chat=True)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.data.writing import write_table

        programmes = linear_programmes.drawn(Random(step.seed))  # no two alike: none is learned and tested
        metrics: Metrics = {}
        for split, counts in (("train", (self.sft, self.problems)), ("test", (self.test, self.test))):
            sets = {"sft": _lessons, "problems": _problems}
            for (name, rows_of), count in zip(sets.items(), counts, strict=True):
                rows = [row for programme in islice(programmes, count) for row in rows_of(programme)]
                metrics[f"rows/{name}/{split}"] = len(rows)
                if PartialState().is_main_process:
                    write_table(rows, step.output / name / f"{split}.parquet")
        return metrics


def _solution(programme: Programme) -> str:
    return f"{programme.elements()}\n\n```python\n{programme.program()}```"


def _lessons(programme: Programme) -> Iterator[dict[str, Any]]:
    """A row of each of the three instructions."""
    lessons = (
        (FORMULATE, str(programme), programme.elements()),
        (PROGRAM, programme.elements(), f"```python\n{programme.program()}```"),
        (SOLVE, str(programme), _solution(programme)),
    )
    for instruction, given, answer in lessons:
        yield {"prompt": said("user", f"{instruction}\n\n{given}"), "completion": said("assistant", answer)}


def _problems(programme: Programme) -> Iterator[dict[str, Any]]:
    optimum = programme.optimum()
    test = f"assert abs(answer - {optimum!r}) <= {1e-4 * max(1.0, abs(optimum))!r}"
    prompt = said("user", f"{SOLVE}\n\n{programme}")
    yield {"prompt": prompt, "answer": optimum, "test_list": [test], "checks": [CHECK]}
