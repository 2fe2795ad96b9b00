"""Kind `openings`: plain text as prompts and completions, each text cut after its first words.

    openings: {data: {path: roneneldan/TinyStories, split: "train[:2000]"}, words: 12}

What makes a corpus usable where prompts are asked for: to sample continuations of real openings, and to train on the
real ones. Rows are `prompt` and `completion`, strings whose sum is the text. Texts of fewer words are left out and
counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting
from trimtab.pipelines.data.forms import TEXT, Data
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class Openings(Stage):
    """`words` is the length of the prompts, at least 1."""

    data: Annotated[Data, TEXT]
    words: int = 12

    writes: ClassVar[tuple[str, ...]] = ("prompt", "completion")

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "words": 2}

    def check(self, step: Step) -> None:
        if self.words < 1:
            raise RecipeError(f"must be at least 1, got {self.words}", (*step.path, "words"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        texts = counting.rows(self.data, step, "data")["text"]
        opening = re.compile(rf"\s*\S+(?:\s+\S+){{{self.words - 1}}}(?=\s+\S)")
        cuts = [(text, match.end()) for text in texts if (match := opening.match(text))]
        if not cuts:
            raise RecipeError(f"none of {len(texts)} texts has more than {self.words} words", (*step.path, "words"))
        write_rows(step, [{"prompt": text[:end], "completion": text[end:]} for text, end in cuts])
        return {"rows": len(cuts), "too_short": len(texts) - len(cuts)}
