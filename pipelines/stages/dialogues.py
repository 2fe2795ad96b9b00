"""Kind `dialogues`: dialogues as replies to learn, as prompts with references, and as utterances to classify.

    dialogues: {data: {path: li2017dailydialog/daily_dialog, split: train}, turns: dialog, labels: act, context: 5}

Three datasets in the layout of RL4LMs (arXiv 2210.01241), each row an utterance after `context` others:

    $dialogues/replies   prompt (the context, each turn ended by `separator`), completion
    $dialogues/prompts   prompt, reference (the completion), intent (the utterance's label)
    $dialogues/labels    text (the utterance before and this one), label, from 0; of all utterances but first ones
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, ClassVar

from trimtab.pipelines.data import counting
from trimtab.pipelines.data.forms import DIALOGUES, Data, Form
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Dialogues(Stage):
    """`turns` and `labels` are the columns with the lists of a dialogue's utterances and of their labels.

    A context of more than `max_words` words loses its first turns, and one that is longer in its last turn is left
    out.
    """

    data: Annotated[Data, DIALOGUES]
    turns: str = "dialog"
    labels: str = "act"
    context: int = 5
    separator: str = "\n"
    max_words: int | None = None

    splits: ClassVar[tuple[str, ...]] = ("train",)

    def folders(self) -> Collection[str]:
        return ("replies", "prompts", "labels")

    def reads(self) -> dict[str, Form]:
        return {"data": replace(DIALOGUES, columns=((self.turns, self.labels),))}

    def check(self, step: Step) -> None:
        if self.context < 1:
            raise RecipeError(f"must be at least 1, got {self.context}", (*step.path, "context"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        rows = counting.rows(self.data, step, "data")
        values = sorted(set(chain.from_iterable(rows[self.labels])))
        replies, prompts, labels = [], [], []
        for turns, acts in zip(rows[self.turns], rows[self.labels], strict=True):
            turns = [" ".join(turn.split()) for turn in turns]
            for i in range(1, len(turns)):
                text = self._joined(turns[i - 1 : i + 1])
                labels.append({"text": text, "label": values.index(acts[i])})
                prompt = self._prompt(turns[max(0, i - self.context) : i])
                if i >= self.context and prompt:
                    replies.append({"prompt": prompt, "completion": turns[i]})
                    prompts.append({"prompt": prompt, "reference": turns[i], "intent": acts[i]})
        if not replies:
            raise RecipeError(f"no dialogue has more than {self.context} turns", (*step.path, "context"))
        if PartialState().is_main_process:
            import pyarrow as pa
            import pyarrow.parquet as pq

            for name, table in (("replies", replies), ("prompts", prompts), ("labels", labels)):
                (step.output / name).mkdir()
                pq.write_table(pa.Table.from_pylist(table), step.output / name / "train.parquet")
        return {"dialogues": len(rows), "replies": len(replies), "labels": len(labels), "classes": len(values)}

    def _prompt(self, turns: Sequence[str]) -> str | None:
        while self.max_words and len(turns) > 1 and sum(len(turn.split()) for turn in turns) > self.max_words:
            turns = turns[1:]
        if self.max_words and sum(len(turn.split()) for turn in turns) > self.max_words:
            return None
        return self._joined(turns)

    def _joined(self, turns: Sequence[str]) -> str:
        return "".join(f"{turn}{self.separator}" for turn in turns)
