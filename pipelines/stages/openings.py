"""Kind `openings`: plain text as prompts and completions, each text cut after its first words.

    openings: {data: {path: roneneldan/TinyStories, split: "train[:2000]"}, words: 12}

What makes a corpus usable where prompts are asked for: to sample continuations of real openings, and to train on the
real ones. Rows are `prompt` and `completion`, strings whose sum is the text. Texts of fewer words are left out and
counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipelines import data
from pipelines.data import Data
from pipelines.errors import RecipeError
from pipelines.stages import Stage


@dataclass(kw_only=True)
class Openings(Stage):
    """`words` is the length of the prompts, at least 1."""

    data: Data
    words: int = 12

    def check(self, step):
        if self.words < 1:
            raise RecipeError(f"must be at least 1, got {self.words}", (*step.path, "words"))
        data.check(self.data, step, "data", (("text",),))

    def run(self, step):
        from pipelines import parts

        texts = data.load(self.data, (*step.path, "data"))["text"]
        opening = re.compile(rf"\s*\S+(?:\s+\S+){{{self.words - 1}}}(?=\s+\S)")
        cuts = [(text, found.end()) for text in texts if (found := opening.match(text))]
        if not cuts:
            raise RecipeError(f"none of {len(texts)} texts has more than {self.words} words", (*step.path, "words"))
        parts.publish(step, ({"prompt": text[:at], "completion": text[at:]} for text, at in cuts))
        return {"rows": len(cuts), "too_short": len(texts) - len(cuts)}
