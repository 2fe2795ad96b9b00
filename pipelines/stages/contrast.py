"""Kind `contrast`: answers that are given beside the policy's own, which are rejected, as pairs for `prefer`.

    contrast: {completions: $sample, model: {model_name_or_path: $sft}}      # prompts with a column `chosen`
    contrast: {completions: $score, model: ..., accept: {right: 1}}          # what is accepted is not rejected

Rows are lists of two, as `pair: {select: ends}` makes them, with the tokens of `chosen` by the model's own template;
`prefer` computes its reference (`reference: computed`, or a mask), since nobody has sampled `chosen`. They have
`chosen` and `rejected` too, for `dpo`. Without `accept` whatever the policy has said is rejected, right or wrong; with
it, completions whose scores reach what it says are left out and counted, and so are those that say what `chosen` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import trl

from trimtab.pipelines.data import counting, grouping
from trimtab.pipelines.data.forms import COMPLETIONS, Data, Form
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring.combining import Combination, missed
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._rendering import TEMPLATED, render

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

GIVEN = COMPLETIONS.where("chosen", "prompt_ids", "completion_ids", "vocabulary")


@dataclass(kw_only=True)
class Contrast(Stage):
    """`model` is the policy that has sampled, of which the tokenizer is read; `accept` names rewards of the scores."""

    completions: Annotated[Data, GIVEN]
    model: trl.ModelConfig
    accept: dict[str, float] = field(default_factory=dict)

    writes: ClassVar[tuple[str, ...]] = (
        "prompt",
        "chosen",
        "rejected",
        "completions",
        "completion_scores",
        "win_probs",
        "prompt_ids",
        "completion_ids",
        "vocabulary",
    )
    shows: ClassVar[Shows] = Shows(results=("rows", "accepted_dropped"))

    def reads(self) -> dict[str, Form]:
        return {"completions": GIVEN.where("scores") if self.accept else GIVEN}

    def check(self, step: Step) -> None:
        for name in self.accept:
            Combination.of(name).check_ahead(step, "accept")
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(columns=(*self.writes, *TEMPLATED), is_chat=None)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows
        from trimtab.pipelines.sampling import transformers_engine

        rows = counting.rows(self.completions, step, "completions")
        tokenizer = transformers_engine.load_tokenizer(self.model)
        counts = {"accepted_dropped": 0, "equal_dropped": 0}

        def pairs() -> Iterator[dict[str, Any]]:
            for number, row in enumerate(grouping.records(rows, rows.column_names)):
                if text(row["chosen"]) == text(row["completion"]):
                    counts["equal_dropped"] += 1
                elif self.accept and not missed(row["scores"], self.accept):
                    counts["accepted_dropped"] += 1
                else:
                    yield self._pair(row, number, tokenizer, step)

        written = write_rows(step, pairs())
        return {"rows": written, **counts}

    def _pair(self, row: dict[str, Any], number: int, tokenizer: Any, step: Step) -> dict[str, Any]:
        asked = row["prompt_ids"]
        whole = render(tokenizer, row["prompt"], row["chosen"], row).ids
        if whole[: len(asked)] != asked or len(whole) == len(asked):
            raise RecipeError(
                f"row {number}: the chat template of {self.model.model_name_or_path} renders the prompt in another "
                "way when an answer follows than when it is sampled: give the model a template that does not",
                (*step.path, "completions"),
            )
        kept = {name: row[name] for name in (*TEMPLATED, "vocabulary") if name in row}
        return {
            "prompt": row["prompt"],
            "chosen": row["chosen"],
            "rejected": row["completion"],
            "completions": [row["chosen"], row["completion"]],
            "completion_scores": [1.0, 0.0],
            "win_probs": [1.0, 0.0],
            "prompt_ids": asked,
            "completion_ids": [whole[len(asked) :], row["completion_ids"]],
            **kept,
        }
