"""What a step asks of a machine, as its stage says it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from trimtab.pipelines.forecasting.architectures import Architecture

Libraries = Literal["rows", "models", "trainer"]
BYTES_OF_TOKEN = 16  # of a row of completions on disk
TOKENS = 1 << 14  # of a batch whose log-probabilities sampling.transformers_engine computes
FEWEST_DRAWS = 8
DRAWS = 256  # batches that are drawn to see how long the longest text of one is


@dataclass(frozen=True)
class Rows:
    """Rows of a dataset: how many, and the tokens of every text in some of them, as (rows looked at, texts of a row).

    `prompts` is how many prompts they are on, and `answer` the tokens of the longest answer, where that is known.
    `assumed` says what of it is no more than a guess.
    """

    count: float
    tokens: NDArray[float64]
    prompts: float = 0
    answer: float = 0
    assumed: tuple[str, ...] = ()

    def cut(self, limit: int | None) -> Rows:
        """The rows with no text longer than `limit` tokens."""
        return self if limit is None else replace(self, tokens=self.tokens.clip(max=limit))

    def shaped(self, texts: int) -> Rows:
        """Rows of so many texts: those of several taken apart, or one taken several times."""
        there = self.tokens.shape[1]
        if texts == there:
            return self
        if texts == 1:
            return replace(self, count=self.count * there, tokens=self.tokens.reshape(-1, 1))
        return replace(self, tokens=self.tokens[:, :1].repeat(texts, axis=1))

    def longer(self, tokens: float) -> Rows:
        """The rows with so many more tokens in every text."""
        return replace(self, tokens=self.tokens + tokens)

    def packed(self, length: int) -> Rows:
        """The same tokens in full rows of `length`."""
        count = max(1.0, self.count * float(self.tokens.sum(-1).mean()) / length)
        return replace(self, count=count, tokens=0 * self.tokens[:1, :1] + length)

    def padded(self, batch: float, batches: float = DRAWS) -> tuple[float, float]:
        """The tokens of a batch of so many rows, all padded to its longest text: in the mean, and at most."""
        import numpy as np

        draws = round(min(max(batches, FEWEST_DRAWS), DRAWS))
        drawn = np.random.default_rng(0).integers(0, len(self.tokens), (draws, max(1, round(batch))))
        longest = self.tokens[drawn].max((1, 2))
        texts = batch * self.tokens.shape[1]
        return texts * float(longest.mean()), texts * float(longest.max())

    def padded_by_length(self, batch: float, rows: float) -> tuple[float, float]:
        """The same where `rows` of them are sorted by length before they are cut into batches."""
        longest = self.tokens.max(1)
        longest.sort()
        size = max(1, round(batch / max(batch, rows) * len(longest)))
        texts = batch * self.tokens.shape[1]
        return texts * float(longest[::-1][::size].mean()), texts * float(longest[-1])


@dataclass(frozen=True)
class Held:
    """A model in a rank's memory, and whether its weights are trained there."""

    model: Architecture
    is_trained: bool = False


@dataclass(frozen=True)
class Pass:
    """So many `rows` of texts that go through a model, `batch` of them in a call of a rank.

    With `backward` they are learned from; `drawn` tokens are then put behind each, one after another. Texts that are
    `sorted` by length are in a batch with those that are as long.
    """

    model: Architecture
    texts: Rows
    rows: float
    batch: float
    backward: bool = False
    drawn: float = 0
    sorted: bool = False

    def tokens_of_call(self) -> tuple[float, float]:
        """The tokens of a call with their padding: in the mean, and at most."""
        if self.sorted:
            return self.texts.padded_by_length(self.batch, self.rows)
        return self.texts.padded(self.batch, self.rows / self.batch)

    @property
    def width(self) -> float:
        """How many texts a call has."""
        return self.batch * self.texts.tokens.shape[1]


def judged(model: Architecture, rows: Rows, count: float, tokens_per_batch: int = 2048) -> Pass:
    """The pass of texts that a model gives scores, so many tokens at a time."""
    batch = max(1.0, tokens_per_batch // float(rows.tokens.max() * rows.tokens.shape[1]))
    return Pass(model, rows, count, batch, sorted=True)


def told(model: Architecture, rows: Rows, count: float) -> Pass:
    """The pass of completions whose log-probabilities a model tells, so many tokens at a time."""
    batch = max(1.0, min(rows.count, TOKENS // float(rows.tokens.max())))
    return Pass(model, rows, count, batch, sorted=True)


@dataclass(frozen=True)
class Work:
    """All that a step does.

    `libraries` says what is imported for it. `prepared` texts are tokenised first, and `handled` rows pass through
    Python one by one. `leaves` is the artifact: a model, or bytes of rows.
    """

    libraries: Libraries = "rows"
    held: tuple[Held, ...] = ()
    passes: tuple[Pass, ...] = ()
    updates: float = 0
    prepared: float = 0
    handled: float = 0
    leaves: Architecture | float = 0.0
    assumed: tuple[str, ...] = field(default=())
