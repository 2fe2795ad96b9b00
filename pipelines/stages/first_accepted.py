"""Kind `first_accepted`: of several tries at the same prompts, the first completion that was accepted, or the last.

    first_accepted: {tries: [$check-1, $check-2, $check-3], accept: {runs: 1}}

The dataset is that of the tries, in the order of their prompts, with the prompt of the first one and the column `try`,
from 1 on. With a try that is right with probability q, independently, and a check that knows, 1 - (1 - q)^n of n tries
end with a right one: a policy that corrects itself has to be held against that, at as many tries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, grouping
from trimtab.pipelines.data.forms import DRAWN, SCORED, Data
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination, missed
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class FirstAccepted(Stage):
    """`accept` names rewards of the scores, and the least that is accepted of each."""

    tries: list[Annotated[Data, SCORED]]
    accept: dict[str, float]

    writes: ClassVar[tuple[str, ...]] = (*DRAWN, "scores", "try")
    shows: ClassVar[Shows] = Shows(results=("accepted", "tries"))

    def check(self, step: Step) -> None:
        for name in self.accept:
            Combination.of(name).check_ahead(step, "accept")
        super().check(step)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("tries", self.tries[0])

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        tables = [counting.rows(block, step, "tries", str(place)) for place, block in enumerate(self.tries)]
        if len({len(table) for table in tables}) > 1:
            counts = ", ".join(str(len(table)) for table in tables)
            raise RecipeError(f"are of different prompts: there are {counts} completions", (*step.path, "tries"))
        taken: Counter[int] = Counter()
        accepted = 0

        def chosen() -> Iterator[dict[str, Any]]:
            nonlocal accepted
            for rows in zip(*(grouping.records(table, table.column_names) for table in tables), strict=True):
                good = [place for place, row in enumerate(rows) if not missed(row["scores"], self.accept)]
                accepted += bool(good)
                place = good[0] if good else len(rows) - 1
                taken[place + 1] += 1
                yield {**rows[place], "prompt": rows[0]["prompt"], "try": place + 1}

        written = write_rows(step, chosen())
        mean = sum(number * count for number, count in taken.items()) / written
        by_try = {f"taken/{number}": taken[number] / written for number in range(1, len(tables) + 1)}
        return {"rows": written, "accepted": accepted / written, "tries": mean, **by_try}
