"""Kind `preface`: prompts with a text before them, such as a system prompt.

    preface: {prompts: prompts.jsonl, text: "Answer in one sentence."}
    preface: {prompts: prompts.jsonl, text: $tune}          # what `tune_text` has found
    preface: {prompts: prompts.jsonl, text: ./system.txt}   # a file: a place is one word with a slash in it

The text becomes a system message, before the words of one that is there; of prompts that are no conversations it is
the beginning, with an empty line behind it. The rows keep their other columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from trimtab.pipelines.data import counting, grouping, promises
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.data.prefacing import prefaced
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards._wording import is_place, wording

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.forecasting.work import Rows
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Preface(Stage):
    """`text` is written out, or the name of a file or of a stage that leaves a text."""

    prompts: Annotated[Data, PROMPTS]
    text: str

    def check(self, step: Step) -> None:
        if not (is_place(self.text) and step.pending(self.text)):
            self._said(step)
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        is_chat = promises.is_chat(self.prompts, step, (*step.path, "prompts"))
        return replace(promises.of(self.prompts, step), is_chat=is_chat)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("prompts")

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows, text = counting.rows(self.prompts, step, "prompts"), self._said(step)

        def behind() -> Iterator[dict[str, Any]]:
            for row in grouping.records(rows, rows.column_names):
                yield {**row, "prompt": prefaced(row["prompt"], text)}

        return {"rows": write_rows(step, behind()), "characters": len(text)}

    def _said(self, step: Step) -> str:
        try:
            return wording(self.text)
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "text")) from error
