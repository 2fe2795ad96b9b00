"""What gepa asks while it searches for a text, and what it is told, on disk: after a kill nothing is asked twice."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.pipelines.recording import locks, tracking
from trimtab.pipelines.recording.heard import Heard
from trimtab.rewards import RewardFailure

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.scoring.reflector import Reflector

CALLS = "calls.jsonl"  # in the step's folder
PART = "text"  # what gepa calls the one text of a candidate
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """What came of a text on one row: its score, and for the reflector what was said, and what was wrong with it."""

    score: float
    said: str
    feedback: str


class Trial(Protocol):
    """Tries a text on rows, by their numbers; a row's own random numbers are the same whatever the text.

    `size` rows are tried at a time and then kept, and `asked` says what a row asks, for the reflector.
    """

    size: int

    def asked(self, row: int) -> str: ...

    def __call__(self, text: str, rows: Sequence[int], /) -> list[Told]: ...


@dataclass
class Rewrite:
    """A text with where it came from: the one that was rewritten, the question and the reply, and how it did.

    `scores` are those of the rows on which it met its parent, and `selection` its mean on those that choose; None for
    one that did no better than its parent there.
    """

    text: str
    parent: int | None = None
    question: str = ""
    reply: str = ""
    calls: int = 0  # metric calls before it was written
    scores: list[float] = field(default_factory=list)
    selection: float | None = None


class Session:
    """What gepa asks of us: an adapter, a listener and a log in one, with one memory."""

    def __init__(
        self, step: Step, trial: Trial, question: Callable[[str, Any], str], reflector: Reflector, start: str
    ):
        self.step, self.trial, self.question, self.reflector = step, trial, question, reflector
        self.rewrites = [Rewrite(start)]
        self.of_candidate: dict[int, int] = {}  # gepa's numbers of candidates, which are the texts that it keeps
        self.failed: list[Exception] = []
        self.calls, self.times = 0, Counter[str]()
        self.kept = Heard(step.dir / CALLS)
        self.rows: dict[tuple[str, int], Told] = {}
        self.replies: dict[tuple[str, int], str] = {}
        for line in locks.of_main(lambda: list(self.kept)):
            if "reply" in line:
                self.replies[line["question"], line["time"]] = line["reply"]
            else:
                self.rows[line["text"], line["row"]] = Told(**line["told"])

    # gepa's adapter

    def evaluate(self, batch: list[int], candidate: dict[str, str], capture_traces: bool = False) -> Any:
        from gepa import EvaluationBatch

        told = self.tried(candidate[PART], batch)
        self.calls += len(batch)
        scores = [one.score for one in told]
        trajectories = list(zip(batch, told, strict=True))
        return EvaluationBatch(outputs=[one.said for one in told], scores=scores, trajectories=trajectories)

    def make_reflective_dataset(
        self, candidate: dict[str, str], eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        rows = [
            {"Inputs": self.trial.asked(row), "Generated Outputs": one.said, "Feedback": one.feedback}
            for row, one in eval_batch.trajectories
        ]
        return dict.fromkeys(components_to_update, rows)

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        from gepa.strategies.instruction_proposal import InstructionProposalSignature

        text = candidate[PART]
        question = self.question(text, reflective_dataset[PART])
        if self.failed:
            raise self.failed[0]
        try:
            reply = self._reply(question)
        except Exception as error:  # gepa logs it, asks again and goes on
            self.failed.append(error)
            raise
        new = InstructionProposalSignature.output_extractor(reply.strip())["new_instruction"]
        parent = next(number for number, one in enumerate(self.rewrites) if one.text == text)
        self.rewrites.append(Rewrite(new, parent, question, reply, self.calls))
        return {PART: new}

    # gepa's listener

    def on_evaluation_end(self, event: Mapping[str, Any]) -> None:
        if event["candidate_idx"] is None:  # a rewrite that meets its parent
            self.rewrites[-1].scores = list(event["scores"])

    def on_valset_evaluated(self, event: Mapping[str, Any]) -> None:
        self.of_candidate[event["candidate_idx"]] = len(self.rewrites) - 1
        self.rewrites[-1].selection = event["average_score"]

    def on_iteration_end(self, event: Mapping[str, Any]) -> None:
        chosen = [one.selection for one in self.rewrites if one.selection is not None]
        counts = {"calls": self.calls, "rewrites": len(self.rewrites) - 1, "kept": len(chosen) - 1}
        tracking.log({"selection/best": max(chosen), **counts}, event["iteration"])

    # gepa's log

    def log(self, message: str) -> None:
        logger.debug("%s: %s", self.step.name, message)

    # what is asked outside

    def tried(self, text: str, rows: Sequence[int]) -> list[Told]:
        """What comes of a text on rows; what was tried before is known."""
        key = _key(text)
        new = [row for row in dict.fromkeys(rows) if (key, row) not in self.rows]
        for start in range(0, len(new), self.trial.size):
            part = new[start : start + self.trial.size]

            def ask(part: Sequence[int] = part) -> list[Told]:
                told = self.trial(text, part)
                lines = zip(part, told, strict=True)
                self.kept.add(*({"text": key, "row": row, "told": asdict(one)} for row, one in lines))
                return told

            for row, one in zip(part, locks.of_main(ask), strict=True):
                self.rows[key, row] = one
        return [self.rows[key, row] for row in rows]

    def _reply(self, question: str) -> str:
        """The reflector's reply; a question that comes again is asked again."""
        key = _key(question)
        time = self.times[key]
        self.times[key] += 1
        if (key, time) not in self.replies:

            def ask() -> str | RewardFailure:
                from transformers import set_seed

                set_seed(self.step.seed + len(self.rewrites))
                try:
                    reply = self.reflector(question)
                except RewardFailure as failure:
                    return failure
                self.kept.add({"question": key, "time": time, "reply": reply})
                return reply

            self.replies[key, time] = _settled(locks.of_main(ask))
        return self.replies[key, time]


def _settled(reply: Any) -> str:
    if isinstance(reply, RewardFailure):
        raise reply.reworded(
            f"the reflector does not reply: {reply.reason}\nwhat was tried is kept: the same command goes on"
        )
    return reply


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
