"""Kind `prefill`: prompts whose answer begins with given thoughts, so that the policy goes on from them.

    prefill: {thoughts: $thoughts, model: {model_name_or_path: $sft}}      # `sample` on what `critique` leaves

Rows are `prompt`, the text of `asked` by the model's chat template with the thoughts between the marks behind it;
`thought`, the thoughts; and the other columns, `spent` with the critic's tokens. See `reflect`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data import counting, grouping
from trimtab.pipelines.data.forms import COMPLETIONS, OF_SAMPLES, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._rendering import Unrenderable, added, conversation
from trimtab.rewards._thoughts import MARKS, wrong

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Prefill(Stage):
    """`model` is the policy that is to go on, of which the tokenizer is read."""

    thoughts: Annotated[Data, COMPLETIONS.where("asked", "spent", "completion_ids")]
    model: trl.ModelConfig
    marks: list[str] = field(default_factory=lambda: list(MARKS))

    writes: ClassVar[tuple[str, ...]] = ("prompt", "asked", "thought", "spent")

    def check(self, step: Step) -> None:
        if message := wrong(self.marks):
            raise RecipeError(message, (*step.path, "marks"))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(is_chat=False)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows
        from trimtab.pipelines.sampling import transformers_engine

        rows = counting.rows(self.thoughts, step, "thoughts")
        tokenizer = transformers_engine.load_tokenizer(self.model)
        begun = "".join(tokenizer.convert_ids_to_tokens(added(tokenizer)[0]))  # which come before any text
        begin, end = self.marks

        def prompts() -> Iterator[dict[str, Any]]:
            for number, row in enumerate(grouping.records(rows, rows.column_names)):
                thought = text(row["completion"]).replace(begin, " ").replace(end, " ").strip()
                asked = row["asked"]
                try:
                    opened = asked if isinstance(asked, str) else conversation(tokenizer, asked, row, opened=True)
                except Unrenderable as error:
                    raise RecipeError(f"row {number}: {error}", (*step.path, "thoughts")) from error
                kept = {name: row[name] for name in row if name not in OF_SAMPLES}
                prompt = f"{opened.removeprefix(begun)}{begin}\n{thought}\n{end}\n"
                spent = row["spent"] + len(row["completion_ids"])
                yield {**kept, "prompt": prompt, "thought": thought, "spent": spent}

        return {"rows": write_rows(step, prompts())}
