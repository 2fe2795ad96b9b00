"""Kind `study`: questions about a corpus as prompts for a teacher, who thinks in parts and then answers.

    study:
      questions: $questions               # `sample` on what `chunks` leaves
      corpus: {path: corpus.jsonl}
      passages: 3
      parts: {Reasoning: "List the steps ...", Concepts: "Name the concepts ..."}

The text of a question is that from which it was asked, enriched by the `passages` of the corpus that have most in
common with it (BM25). Every part is a prompt of its own, and the answer another one, all with the same text. Rows are
`prompt`, `question`, `question_index` and `part`, which is empty for the answer. Questions that are empty, or there
already, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, grouping, passages
from trimtab.pipelines.data.forms import COMPLETIONS, TEXT, Data, said
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

PARTS = {
    "Reasoning": "List, in a few short lines, the steps that lead from the text to the answer.",
    "Concepts": "Name, in a few short lines, the concepts and facts of the text that the answer needs.",
}
ASKED = COMPLETIONS.where("context", "passages")


@dataclass(kw_only=True)
class Study(Stage):
    """`words` and `overlap` are those of `chunks`. `asks` takes `{context}`, `{question}` and a part's `{task}`."""

    questions: Annotated[Data, ASKED]
    corpus: Annotated[Data, TEXT]
    words: int = 200
    overlap: int = 20
    passages: int = 3
    parts: dict[str, str] = field(default_factory=lambda: dict(PARTS))
    answer: str = "Answer the question from the text."
    asks: str = "Here is a text.\n\n{context}\n\nQuestion: {question}\n\n{task}"

    writes: ClassVar[tuple[str, ...]] = ("prompt", "question", "question_index", "part")
    shows: ClassVar[Shows] = Shows(results=("questions", "enriched"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "words": 8, "overlap": 0}

    def check(self, step: Step) -> None:
        passages.check_cut(self.words, self.overlap, step.path)
        if self.passages < 0:
            raise RecipeError(f"must be at least 0, got {self.passages}", (*step.path, "passages"))
        if self.passages:
            passages.require_library((*step.path, "passages"))
        passages.check_places(self.asks, ("context", "question", "task"), (*step.path, "asks"))
        if "" in self.parts:
            raise RecipeError("a part needs a name: the one without is the answer", (*step.path, "parts"))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(columns=self.writes, is_chat=True)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        asked = counting.rows(self.questions, step, "questions")
        texts = passages.cut(counting.rows(self.corpus, step, "corpus")["text"], self.words, self.overlap)
        counts = {"empty_dropped": 0, "duplicates_dropped": 0}
        unique: dict[str, dict[str, Any]] = {}
        for row in grouping.records(asked, ("completion", "context", "passages")):
            question = text(row["completion"]).strip()
            counts["empty_dropped"] += not question
            counts["duplicates_dropped"] += question in unique
            if question:
                unique.setdefault(question, row)
        if not unique:
            raise RecipeError(f"all of {len(asked)} questions are empty", (*step.path, "questions"))
        # of what is found, some is shown already
        wanted = self.passages + max(len(row["passages"]) for row in unique.values())
        near = passages.similar(texts, list(unique), wanted) if self.passages else [[] for _ in unique]
        rows, added = [], 0
        for index, ((question, row), numbers) in enumerate(zip(unique.items(), near, strict=True)):
            others = [number for number in numbers if number not in row["passages"]][: self.passages]
            added += len(others)
            context = "\n\n".join([row["context"], *(texts[number] for number in others)])
            for part, task in {**self.parts, "": self.answer}.items():
                prompt = self.asks.format(context=context, question=question, task=task)
                about = {"question": question, "question_index": index, "part": part}
                rows.append({"prompt": said("user", prompt), **about})
        write_rows(step, rows)
        return {"questions": len(unique), "rows": len(rows), "enriched": added / len(unique), **counts}
