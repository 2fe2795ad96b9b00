"""Reward kind `math`: whether a completion's answer equals the gold answer in a column.

    rewards:
      right: {kind: math}                                     # the column `answer`, as the layout gsm8k leaves it
      exact: {kind: math, column: solution, answer_in: boxed}
      plain: {kind: math, compare: numbers}                   # needs no extra

The gold answer may be a whole solution: what counts is its last \\boxed{...}, else what follows its last ####, else
all of it.
"""

from __future__ import annotations

import importlib.util
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from trimtab.rewards import Outcome, RewardFailure, excerpt, settled, text
from trimtab.rewards._answers import Form, marked, number


@dataclass(kw_only=True)
class Math:
    """1 for the right answer and 0 for another one, or one that cannot be read; no score without a gold answer.

    `answer_in` says where a completion has to give its answer: in its last \\boxed{...}, behind its last `####`
    (`hashes`), or in `any` way, which is these two or else the last expression in it. With `compare: expressions`
    math-verify compares (the extra `math`): fractions, roots, intervals, sets, equations. With `compare: numbers` the
    last numbers are compared, exactly.

    math-verify runs in `workers` processes. An answer on which it takes more than `cpu_seconds` of processor time, or
    more memory than there is for it, cannot be read. Raises PartlyScored: a gold answer that cannot be read fails its
    completions, and so does a process that has no verdict within `deadline` seconds or dies by itself. Raises
    ValueError for a missing column, and when math-verify is not installed.
    """

    column: str = "answer"
    answer_in: Form = "any"
    compare: Literal["expressions", "numbers"] = "expressions"
    cpu_seconds: int = 5
    deadline: float = 120
    workers: int = 2

    # how the answers are compared, not what comes of it
    neutral: ClassVar[tuple[str, ...]] = ("deadline", "workers")

    @staticmethod
    def small(block: dict[str, Any], miniature: Any) -> dict[str, Any]:
        """Of a shrunk run: a random model has no right answer."""
        return {"kind": "length", "target": 5, "unit": "characters"}

    def __post_init__(self) -> None:
        for name in ("cpu_seconds", "deadline", "workers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"math: {name} must be positive, got {getattr(self, name)}")
        self._pool: Any = None

    def load(self) -> None:
        """Looks for math-verify, where it is needed."""
        if self.compare == "expressions" and importlib.util.find_spec("math_verify") is None:
            raise ValueError(
                'math: comparing expressions needs math-verify: pip install "trimtab[math]" '
                "(`compare: numbers` needs nothing, and compares numbers alone)"
            )

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        if not completions:
            return []
        if self.column not in columns:
            raise ValueError(f"math: the data has no column {self.column!r} (it has: {', '.join(columns)})")
        golds = columns[self.column]
        answers = [self._answer(text(completion)) for completion in completions]
        if self.compare == "numbers":
            return settled([_by_number(gold, answer) for gold, answer in zip(golds, answers, strict=True)])
        return settled(self._by_expression(golds, answers))

    def _answer(self, said: str) -> str | None:
        """The answer as math-verify reads it: a box, or where any form will do the whole text."""
        answer = marked(said, self.answer_in)
        if answer is not None:
            return boxed(answer)
        return said if self.answer_in == "any" else None

    def _by_expression(self, golds: list, answers: list[str | None]) -> list[Outcome]:
        from trimtab.rewards._workers import Workers

        self.load()
        self._pool = self._pool or Workers(Path(__file__).with_name("_math_worker.py"), self.workers)
        questions = [
            {"gold": boxed(_gold(gold)), "answer": answer or "", "seconds": self.cpu_seconds}
            for gold, answer in zip(golds, answers, strict=True)
            if gold is not None
        ]
        verdicts = iter(self._pool.ask(questions, self.deadline))
        return [None if gold is None else _outcome(gold, next(verdicts)) for gold in golds]


def boxed(answer: str) -> str:
    """The answer as math-verify reads it best."""
    return rf"\boxed{{{answer}}}"


def _gold(gold: Any) -> str:
    """The answer in a column's value, which may be a number or a whole solution."""
    said = str(gold).strip()
    answer = marked(said)
    return (said if answer is None else answer).strip("$")


def _outcome(gold: Any, verdict: Any) -> Outcome:
    """What the process's verdict means; where there is none, what its end means."""
    from trimtab.rewards._workers import Ended

    if isinstance(verdict, Ended) and verdict.code == -signal.SIGXCPU:
        return 0.0  # it would take forever to say what the answer is
    if isinstance(verdict, Exception):
        return RewardFailure(f"math-verify has no verdict: {verdict}")
    return float(verdict["right"]) if verdict["gold"] else _unreadable(gold)


def _by_number(gold: Any, answer: str | None) -> Outcome:
    if gold is None:
        return None
    right = number(_gold(gold))
    if right is None:
        return _unreadable(gold)
    return float(answer is not None and number(answer) == right)


def _unreadable(gold: Any) -> RewardFailure:
    return RewardFailure(f"the gold answer cannot be read: {excerpt(str(gold))!r}")
