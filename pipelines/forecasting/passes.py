"""What goes through a model: texts that it learns from or scores, and answers that it draws token by token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from trimtab.pipelines.forecasting.architectures import Architecture
    from trimtab.pipelines.forecasting.work import Rows

TOKENS = 1 << 14  # of a batch whose log-probabilities sampling.transformers_engine computes
JUDGED = 1 << 10  # rows over which the tokens of one are averaged
LARGEST = 32  # batches that are drawn to see how rows make room for others


@dataclass(frozen=True)
class Pass:
    """So many `rows` of texts that go through a model, `batch` of them in a call of a rank.

    With `backward` they are learned from. Texts that are `sorted` are in a batch with those of the same prompt. A call
    has no more than `limit` tokens, or one row.
    """

    model: Architecture
    texts: Rows
    rows: float
    batch: float
    backward: bool = False
    sorted: bool = False
    limit: float = math.inf

    def tokens_of_call(self) -> tuple[float, float]:
        """The tokens of a call: in the mean, and at most."""
        if self.sorted:
            return self.texts.of_batch_by_prompt(self.batch)
        mean, most = self.texts.of_batch(self.batch, self.rows / self.batch)
        return mean, most if most <= self.limit else max(self.limit, self.texts.of_batch(1)[1])

    @property
    def scored_of_call(self) -> float:
        """Those of them that the head looks at, in the mean: the answers'."""
        return self.batch * float(self.texts.answers.sum(1).mean())


@dataclass(frozen=True)
class Drawing:
    """So many `rows` of answers that a model draws to the prompts in `texts`, up to `batch` at once.

    That is what sampling/sampler.py does. `lengths` are those that answers may have, all as likely, and `most` the
    tokens that one can have. A prompt is read once for `answers` rows, and the sampler begins anew after `part` rows.
    """

    model: Architecture
    texts: Rows
    rows: float
    batch: float
    lengths: NDArray[float64]
    most: float
    answers: float = 1
    part: float = math.inf

    @property
    def read(self) -> float:
        """The tokens of prompts that are read."""
        return self.rows / self.answers * float(self.texts.tokens.mean())

    def calls(self) -> tuple[float, float, float]:
        """(calls that read prompts, calls that draw, rows in all of the latter) of all rows.

        A quarter of the rows in a batch have to end before others take their places.
        """
        import numpy as np

        drawn = round(max(1.0, min(self.rows, self.part, LARGEST * self.batch)))
        waiting = np.random.default_rng(0).choice(self.lengths, drawn)
        read, said, fed = 0, 0.0, 0.0
        going = waiting[:0]
        while len(waiting) or len(going):
            room = max(0, round(self.batch) - len(going))
            read += bool(room and len(waiting))
            going = np.sort(np.concatenate([going, waiting[:room]]))
            waiting = waiting[room:]
            steps = going[math.ceil(len(going) / 4) - 1]
            said, fed = said + steps, fed + steps * len(going)
            going = going[going > steps] - steps
        times = self.rows / drawn
        return times * read, times * said, times * fed


def judged(model: Architecture, rows: Rows, count: float, tokens_per_batch: int = 2048) -> Pass:
    """The pass of texts that a model gives scores, so many tokens at a time."""
    batch = max(1.0, tokens_per_batch * JUDGED / rows.of_batch_by_prompt(JUDGED)[0])
    return Pass(model, rows, count, min(batch, max(1.0, count)), sorted=True)


def told(model: Architecture, rows: Rows, count: float) -> Pass:
    """The pass of completions whose log-probabilities a model tells, so many tokens at a time."""
    batch = max(1.0, min(count, TOKENS / float(rows.tokens.mean())))
    return Pass(model, rows, count, batch, sorted=True)
