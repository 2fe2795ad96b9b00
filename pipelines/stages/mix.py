"""Kind `mix`: synthetic rows and real ones in a given proportion, for supervised fine-tuning.

    mix: {synthetic: [$curate], real: $world/sft, real_fraction: 0.2}

All synthetic rows are kept, and as many real ones are drawn, without replacement as long as they last, as make up
`real_fraction` of the whole: 1 / (1 + lambda) for a synthetic-to-real ratio lambda (arXiv 2407.09499). At 0 there are
none (lambda is infinite); at 1 there are only real rows, as many as there would have been synthetic ones, which is the
control of equal size. Rows are `prompt` and `completion`, in trl's form, with a column `source`, and with `tools` and
`chat_template_kwargs` where any row has them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import ANSWERS, COMPLETIONS, Data
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Mix(Stage):
    """0 <= `real_fraction` <= 1. `synthetic` are datasets of `curate`: one, or those of all rounds so far."""

    synthetic: list[Annotated[Data, COMPLETIONS]] = field(default_factory=list)
    real: Annotated[Data | None, ANSWERS] = None
    real_fraction: float = 0.2

    writes: ClassVar[tuple[str, ...]] = ("prompt", "completion", "source")
    shows: ClassVar[Shows] = Shows(
        {"Share of real rows": ("real_fraction",)}, ("rows", "real_fraction"), by_round=True
    )

    def check(self, step: Step) -> None:
        if not 0 <= self.real_fraction <= 1:
            raise RecipeError(f"must be between 0 and 1, got {self.real_fraction}", (*step.path, "real_fraction"))
        if self.real is None and self.real_fraction > 0:
            raise RecipeError("a `real_fraction` above 0 needs real data", (*step.path, "real"))
        if not self.synthetic:
            place = (*step.path, "synthetic")
            raise RecipeError("name at least one dataset: also `real_fraction: 1` has as many rows", place)
        super().check(step)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        from trimtab.pipelines.forecasting.rows import joined

        rows = joined([known.rows("synthetic", block) for block in self.synthetic])
        return rows if self.real_fraction == 1 else replace(rows, count=rows.count / (1 - self.real_fraction))

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        synthetic = []
        for number, block in enumerate(self.synthetic, start=1):
            curated = loading.load(block, (*step.path, "synthetic"))
            synthetic += [_row(row, row["prompt"], row["completion"], f"synthetic-{number}") for row in curated]
        real = self._drawn(step, len(synthetic))
        rows = real if self.real_fraction == 1 else synthetic + real
        if len({isinstance(part[0]["completion"], str) for part in (synthetic, real) if part}) > 1:
            raise RecipeError("one of synthetic and real rows is chat and the other text", (*step.path, "real"))
        random.Random(step.seed).shuffle(rows)
        columns = dict.fromkeys(chain.from_iterable(rows))
        write_rows(step, [{column: row.get(column) for column in columns} for row in rows])
        return {"rows": len(rows), "real": len(real), "real_fraction": len(real) / max(1, len(rows))}

    def _drawn(self, step: Step, synthetic: int) -> list[dict[str, Any]]:
        fraction = self.real_fraction
        wanted = synthetic if fraction == 1 else round(synthetic * fraction / (1 - fraction))
        if not wanted:
            return []
        rows = [_real(row) for row in loading.load(self.real, (*step.path, "real"))]
        drawn: list[dict[str, Any]] = []
        generator = random.Random(f"{step.seed}-real")
        while len(drawn) < wanted:  # where more are wanted than there are, every one comes once more
            drawn += generator.sample(rows, min(len(rows), wanted - len(drawn)))
        return drawn


def _real(row: dict[str, Any]) -> dict[str, Any]:
    """A row of any of the forms as prompt and completion."""
    if "messages" in row:
        return _row(row, row["messages"][:-1], row["messages"][-1:], "real")
    if "text" in row:
        return _row(row, "", row["text"], "real")
    return _row(row, row["prompt"], row["completion"], "real")


def _row(row: dict[str, Any], prompt: Any, completion: Any, source: str) -> dict[str, Any]:
    settings = {column: row[column] for column in TEMPLATED if column in row}
    return {"prompt": prompt, "completion": completion, "source": source, **settings}
