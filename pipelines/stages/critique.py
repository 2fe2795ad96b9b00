"""Kind `critique`: answers with their thoughts as prompts for a critic, who is to write better thoughts.

    critique: {completions: $sample}

Rows are `prompt`, what the critic is asked; `asked`, the prompt that was answered, with the numbers of prompt and
answer in `asked_index` and `asked_sample`; `spent`, the tokens that were drawn for it so far; and the prompt's other
columns. Scores and samples do not stay. See `reflect`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from trimtab.pipelines.data import counting, grouping, passages
from trimtab.pipelines.data.forms import OF_SAMPLES, SAMPLED, Data, said
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._thoughts import MARKS, split, wrong

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Critique(Stage):
    """`asks` takes the `{question}`, the `{thoughts}` and the `{answer}`."""

    completions: Annotated[Data, SAMPLED.where("completion_ids")]
    marks: list[str] = field(default_factory=lambda: list(MARKS))
    asks: str = (
        "Question: {question}\n\nThoughts: {thoughts}\n\nAnswer: {answer}\n\nFind what is wrong or missing in these "
        "thoughts, and write them anew, better. Write the thoughts alone."
    )

    def check(self, step: Step) -> None:
        if message := wrong(self.marks):
            raise RecipeError(message, (*step.path, "marks"))
        passages.check_places(self.asks, ("question", "thoughts", "answer"), (*step.path, "asks"))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(is_chat=True)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")

        def prompts() -> Iterator[dict[str, Any]]:
            for row in grouping.records(rows, rows.column_names):
                thoughts, answer = split(text(row["completion"]), *self.marks)
                asked = self.asks.format(question=text(row["prompt"]), thoughts=thoughts, answer=answer)
                kept = {name: row[name] for name in row if name not in OF_SAMPLES}
                spent = row.get("spent", len(row["completion_ids"]))
                of = {"asked": row["prompt"], "asked_index": row["prompt_index"], "asked_sample": row["sample_index"]}
                yield {**kept, "prompt": said("user", asked), **of, "spent": spent}

        return {"rows": write_rows(step, prompts())}
