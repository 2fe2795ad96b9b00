"""Kind `thoughts`: what a teacher has thought in parts, and answered, as one answer that a student is to give.

    thoughts: {parts: $parts, marks: ["<|thinking|>", "<|/thinking|>"]}      # `sample` on what `study` leaves

Rows are prompts for the student: `prompt`, the question as `asks` has it; `chosen`, the parts between the marks and
the answer behind them; and `solution`, the answer alone, which a reward may compare with. With `think: false` the
answer is all that is to be given, and the question all that is asked: the control. Answers that are empty or cut are
left out with their question and counted, and so are parts. Marks that the teacher has written are taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import counting, grouping, passages
from trimtab.pipelines.data.forms import COMPLETIONS, Data, said
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards import text
from trimtab.rewards._thoughts import MARKS, wrong

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

OF_PARTS = COMPLETIONS.where("question", "question_index", "part", "truncated")


@dataclass(kw_only=True)
class Thoughts(Stage):
    """`asks` takes the `{question}` and, if it likes, the mark that thinking begins with, `{begin}`."""

    parts: Annotated[Data, OF_PARTS]
    marks: list[str] = field(default_factory=lambda: list(MARKS))
    asks: str = "{question} Use {begin}."
    think: bool = True
    drop_truncated: bool = True

    writes: ClassVar[tuple[str, ...]] = ("prompt", "chosen", "solution")
    shows: ClassVar[Shows] = Shows(results=("rows",))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "drop_truncated": False}  # nothing ends within eight tokens

    def check(self, step: Step) -> None:
        if message := wrong(self.marks):
            raise RecipeError(message, (*step.path, "marks"))
        passages.check_places(self.asks, ("question",), (*step.path, "asks"), optional=("begin",))
        super().check(step)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(columns=self.writes, is_chat=True)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.parts, step, "parts")
        counts = {"answers_dropped": 0, "parts_dropped": 0}
        lessons = []
        for group in grouping.by_column(rows, "question_index").rows(rows, rows.column_names):
            told = {row["part"]: self._told(row) for row in group}
            answer = told.pop("", None)
            if not answer:
                counts["answers_dropped"] += 1
                continue
            counts["parts_dropped"] += sum(not part for part in told.values())
            whole = {name: part for name, part in told.items() if part}
            lessons.append(self._lesson(group[0]["question"], whole, answer))
        if not lessons:
            message = "answers are empty or cut: raise `max_new_tokens` of the teacher"
            raise RecipeError(f"all of {counts['answers_dropped']} {message}", (*step.path, "parts"))
        write_rows(step, lessons)
        return {"rows": len(lessons), **counts}

    def _told(self, row: Mapping[str, Any]) -> str | None:
        """What the teacher has said, without marks; None where it was cut."""
        if row["truncated"] and self.drop_truncated:
            return None
        words = text(row["completion"])
        for mark in self.marks:
            words = words.replace(mark, " ")
        return words.strip()

    def _lesson(self, question: str, parts: Mapping[str, str], answer: str) -> dict[str, Any]:
        begin, end = self.marks
        prompt, chosen = question, answer
        if self.think:
            thought = "\n\n".join(f"{name}: {part}" for name, part in parts.items())
            prompt = self.asks.format(question=question, begin=begin)
            chosen = f"{begin}\n{thought}\n{end}\n{answer}"
        return {"prompt": said("user", prompt), "chosen": said("assistant", chosen), "solution": answer}
