"""Kind `reflected`: what a policy has answered after thoughts that it was given, as answers to what was asked.

    reflected: {completions: $sample}      # `sample` on what `prefill` leaves

Rows are completions of `asked`, thoughts and marks included, with `spent`, the tokens that were drawn for them in all:
also those of earlier answers and of the critic. They may be scored and compared as any others. See `reflect`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, grouping
from trimtab.pipelines.data.forms import SAMPLED, Data, said
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._thoughts import MARKS, wrong

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

ASKED = ("asked", "asked_index", "asked_sample")
PREFILLED = SAMPLED.where(*ASKED, "thought", "spent", "completion_ids", "truncated")
OF_PREFILLED = (*ASKED, "thought", "prompt_ids", "logprobs")  # whose tokens are those of another prompt


@dataclass(kw_only=True)
class Reflected(Stage):
    """`marks` are those that `prefill` had."""

    completions: Annotated[Data, PREFILLED]
    marks: list[str] = field(default_factory=lambda: list(MARKS))

    writes: ClassVar[tuple[str, ...]] = (
        "prompt",
        "completion",
        "prompt_index",
        "sample_index",
        "completion_ids",
        "vocabulary",
        "truncated",
        "spent",
    )
    shows: ClassVar[Shows] = Shows(results=("spent",))

    def check(self, step: Step) -> None:
        if message := wrong(self.marks):
            raise RecipeError(message, (*step.path, "marks"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")
        begin, end = self.marks
        total = 0

        def answers() -> Iterator[dict[str, Any]]:
            nonlocal total
            for row in grouping.records(rows, rows.column_names):
                whole = f"{begin}\n{row['thought']}\n{end}\n{text(row['completion'])}"
                spent = row["spent"] + len(row["completion_ids"])
                total += spent
                kept = {name: row[name] for name in row if name not in OF_PREFILLED}
                completion = whole if isinstance(row["asked"], str) else said("assistant", whole)
                place = {"prompt_index": row["asked_index"], "sample_index": row["asked_sample"]}
                yield {**kept, **place, "prompt": row["asked"], "completion": completion, "spent": spent}

        written = write_rows(step, answers())
        return {"rows": written, "spent": total / written}
