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
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, loading, promises
from trimtab.pipelines.data.forms import ANSWERS, COMPLETIONS, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.work import Rows
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step

BATCH = 1000  # rows that are in memory at a time
MIXED = "one of synthetic and real rows is chat and the other text: sample prompts of the form of the real rows"

SOURCE = 1 << 40  # times the place of a source, and a row's number in it, is a row's: 8 bytes where pairs take 100


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
        self._check_forms(step)
        super().check(step)

    def _check_forms(self, step: Step) -> None:
        """Raises RecipeError where it is certain that conversations and text would be mixed."""
        if not self.real or not self.real_fraction:
            return
        forms = {promises.of(block, step).is_chat for block in self.synthetic}
        forms.add(promises.is_chat(self.real, step, (*step.path, "real")))
        if {True, False} <= forms:
            raise RecipeError(MIXED, (*step.path, "real"))

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return promises.written(self)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        from trimtab.pipelines.forecasting.rows import joined

        rows = joined([known.rows("synthetic", block) for block in self.synthetic])
        return rows if self.real_fraction == 1 else replace(rows, count=rows.count / (1 - self.real_fraction))

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        several = len(self.synthetic) > 1
        sources = []
        for place, block in enumerate(self.synthetic):
            sources.append(counting.rows(block, step, "synthetic", *([str(place)] if several else [])))
        synthetic = array("q")
        for place, rows in enumerate(sources):
            synthetic.extend(range(place * SOURCE, place * SOURCE + len(rows)))
        wanted = self._wanted(len(synthetic))
        if wanted:
            loaded = loading.read(self.real, (*step.path, "real"))
            sources.append(loading.joined(loaded.parts))
        first = len(self.synthetic) * SOURCE
        drawn = _drawn(step, len(sources[-1]), wanted)
        if wanted:
            counting.note(self.real, loaded, sorted(set(drawn)), step, "real")
        real = array("q", (first + number for number in drawn))
        order = real if self.real_fraction == 1 else synthetic + real
        names = [*(f"synthetic-{place}" for place in range(1, 1 + len(self.synthetic))), "real"]
        firsts = [_row(rows[0], name) for rows, name in zip(sources, names, strict=False)]
        if len({isinstance(row["completion"], str) for row in firsts}) > 1:
            raise RecipeError(MIXED, (*step.path, "real"))
        random.Random(step.seed).shuffle(order)
        write_rows(step, _rows(sources, names, order))
        return {"rows": len(order), "real": len(real), "real_fraction": len(real) / max(1, len(order))}

    def _wanted(self, synthetic: int) -> int:
        """How many real rows there are to be beside so many synthetic ones."""
        fraction = self.real_fraction
        return synthetic if fraction == 1 else round(synthetic * fraction / (1 - fraction))


def _drawn(step: Step, count: int, wanted: int) -> array:
    """The numbers of so many of `count` real rows; where more are wanted than there are, each comes once more."""
    drawn = array("q")
    generator = random.Random(f"{step.seed}-real")
    while len(drawn) < wanted:
        drawn.extend(generator.sample(range(count), min(count, wanted - len(drawn))))
    return drawn


def _rows(sources: Sequence[Dataset], names: Sequence[str], order: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The rows of `order`, read a few at a time; all have the columns that any has."""
    used = sorted({code // SOURCE for code in order})
    columns = dict.fromkeys(chain.from_iterable(_row(sources[place][0], names[place]) for place in used))
    for start in range(0, len(order), BATCH):
        batch = [divmod(code, SOURCE) for code in order[start : start + BATCH]]
        read: dict[tuple[int, int], dict[str, Any]] = {}
        for place in used:
            numbers = [number for source, number in batch if source == place]
            rows = sources[place].select(numbers).to_list()
            read |= {(place, number): row for number, row in zip(numbers, rows, strict=True)}
        for place, number in batch:
            row = _row(read[place, number], names[place])
            yield {column: row.get(column) for column in columns}


def _row(row: dict[str, Any], source: str) -> dict[str, Any]:
    """A row of any of the forms as prompt and completion."""
    if source == "real" and "messages" in row:
        prompt, completion = row["messages"][:-1], row["messages"][-1:]
    elif source == "real" and "text" in row:
        prompt, completion = "", row["text"]
    else:
        prompt, completion = row["prompt"], row["completion"]
    settings = {column: row[column] for column in TEMPLATED if column in row}
    return {"prompt": prompt, "completion": completion, "source": source, **settings}
