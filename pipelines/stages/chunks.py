"""Kind `chunks`: passages of a corpus as prompts that ask for a question about them.

    chunks: {data: {path: corpus.jsonl}, words: 200, contexts: 3, count: 50, round: 2}

Each of `count` prompts shows `contexts` passages, drawn at random: none is shown again before all have been. Round 2
goes on where round 1 has ended. Rows are `prompt`, and `context` and `passages`, the text that is shown and the
numbers of its passages, by which `study` knows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, passages
from trimtab.pipelines.data.forms import TEXT, Data, said
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class Chunks(Stage):
    """A passage has `words` words, of which `overlap` are the last of the one before; `asks` takes its `{context}`."""

    data: Annotated[Data, TEXT]
    words: int = 200
    overlap: int = 20
    contexts: int = 1
    count: int = 50
    round: int = 1
    asks: str = (
        "Here is a text.\n\n{context}\n\nWrite one question that this text answers, and that can be understood by "
        "somebody who has not seen the text. Write the question alone."
    )

    writes: ClassVar[tuple[str, ...]] = ("prompt", "context", "passages")
    shows: ClassVar[Shows] = Shows(results=("passages", "passes"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "count": 4, "contexts": 1, "words": 8, "overlap": 0}

    def check(self, step: Step) -> None:
        passages.check_cut(self.words, self.overlap, step.path)
        for key in ("contexts", "count", "round"):
            if getattr(self, key) < 1:
                raise RecipeError(f"must be at least 1, got {getattr(self, key)}", (*step.path, key))
        passages.check_places(self.asks, ("context",), (*step.path, "asks"))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(rows=self.count, columns=self.writes, is_chat=True)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        texts = passages.cut(counting.rows(self.data, step, "data")["text"], self.words, self.overlap)
        if len(texts) < self.contexts:
            message = f"the corpus has {len(texts)} passages of {self.words} words, and a prompt shows {self.contexts}"
            raise RecipeError(message, (*step.path, "data"))
        drawn = passages.of_round(len(texts), self.contexts, self.round, self.count, step.seed)
        rows = []
        for numbers in drawn:
            context = "\n\n".join(texts[number] for number in numbers)
            asked = said("user", self.asks.format(context=context))
            rows.append({"prompt": asked, "context": context, "passages": numbers})
        write_rows(step, rows)
        turns_of_pass = len(texts) // self.contexts
        return {"rows": len(rows), "passages": len(texts), "passes": self.round * self.count / turns_of_pass}
