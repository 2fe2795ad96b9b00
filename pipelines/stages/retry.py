"""Kind `retry`: prompts for another try, where what was answered has not been accepted.

    retry: {scored: $check, accept: {runs: 1}}

A prompt whose completion has less than `accept` says of a reward is followed by that completion and by `says`, in
which `{missed}` stands for the names of what was missed: a further turn of a conversation, or text behind text.
Prompts whose completion was accepted stay as they are, so that every try asks as many. With `feedback: false` all of
them stay: the control, which only tries again. The prompts' other columns stay; scores and samples do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, grouping
from trimtab.pipelines.data.forms import OF_SAMPLES, SCORED, Data, said
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination, missed
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Retry(Stage):
    """`scored` has one completion of each prompt. One without a score is not accepted."""

    scored: Annotated[Data, SCORED]
    accept: dict[str, float]
    says: str = "A check of this answer has failed: {missed}. Find the mistake, and write the whole answer again."
    feedback: bool = True

    shows: ClassVar[Shows] = Shows(results=("accepted",))

    def check(self, step: Step) -> None:
        for name in self.accept:
            Combination.of(name).check_ahead(step, "accept")
        super().check(step)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("scored")

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.scored, step, "scored")
        counts = {"accepted": 0}

        def prompts() -> Iterator[dict[str, Any]]:
            for row in grouping.records(rows, rows.column_names):
                wrong = missed(row["scores"], self.accept)
                counts["accepted"] += not wrong
                kept = {name: row[name] for name in row if name not in OF_SAMPLES}
                yield {**kept, "prompt": self._asked(row, wrong) if wrong and self.feedback else row["prompt"]}

        written = write_rows(step, prompts())
        return {"rows": written, "accepted": counts["accepted"] / written}

    def _asked(self, row: dict[str, Any], wrong: list[str]) -> Any:
        """The prompt with the answer behind it, and what is wrong with that."""
        told = self.says.format(missed=", ".join(wrong))
        if isinstance(row["prompt"], str):
            return f"{row['prompt']}{row['completion']}\n\n{told}\n\n"
        return [*row["prompt"], *row["completion"], *said("user", told)]
