"""What a step asks of a machine, as its stage says it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from numpy import float64
    from numpy.typing import NDArray

    from trimtab.pipelines.forecasting.architectures import Architecture
    from trimtab.pipelines.forecasting.passes import Drawing, Pass

Libraries = Literal["files", "rows", "models", "trainer"]
BYTES_OF_TOKEN = 16  # of a row of completions on disk
FEWEST_DRAWS = 8
DRAWS = 256  # batches that are drawn to see how many tokens the largest has


@dataclass(frozen=True)
class Rows:
    """Rows of a dataset: how many, and the tokens of every text in some of them, as (rows looked at, texts of a row).

    `asked` are the tokens of the prompt of each of these rows, with which its texts begin; None where there is no
    prompt. `prompts` is how many prompts they are on, and `answer` the tokens of the longest answer, where that is
    known. `assumed` says what of it is no more than a guess.
    """

    count: float
    tokens: NDArray[float64]
    prompts: float = 0
    answer: float = 0
    assumed: tuple[str, ...] = ()
    asked: NDArray[float64] | None = None

    @property
    def before(self) -> NDArray[float64]:
        """The tokens of the prompt of each row that was looked at, 0 where it has none."""
        return 0 * self.tokens[:, 0] if self.asked is None else self.asked

    @property
    def answers(self) -> NDArray[float64]:
        """The tokens of every text behind its prompt, as `tokens`."""
        return self.tokens - self.before[:, None]

    def cut(self, limit: int | None) -> Rows:
        """The rows with no text longer than `limit` tokens."""
        if limit is None:
            return self
        return replace(self, tokens=self.tokens.clip(max=limit), asked=self.before.clip(max=limit))

    def shaped(self, texts: int) -> Rows:
        """Rows of so many texts: those of several taken apart, or one taken several times."""
        there = self.tokens.shape[1]
        if texts == there:
            return self
        if texts == 1:
            asked = self.before.repeat(there)
            return replace(self, count=self.count * there, tokens=self.tokens.reshape(-1, 1), asked=asked)
        return replace(self, tokens=self.tokens[:, :1].repeat(texts, axis=1))

    def answered(self, lengths: NDArray[float64]) -> Rows:
        """Prompts with an answer of one of these lengths behind each."""
        import numpy as np

        drawn = np.random.default_rng(0).choice(lengths, len(self.tokens))
        return replace(self, tokens=self.tokens[:, :1] + drawn[:, None], asked=self.tokens[:, 0])

    def packed(self, length: int) -> Rows:
        """The same tokens in full rows of `length`."""
        count = max(1.0, self.count * float(self.tokens.sum(-1).mean()) / length)
        return replace(self, count=count, tokens=0 * self.tokens[:1, :1] + length, asked=None)

    def of_batch(self, batch: float, batches: float = DRAWS) -> tuple[float, float]:
        """The tokens that are computed of so many rows: in the mean, and at most.

        They are packed (rewards/_packing.py): no padding, and the prompt of a row's texts once.
        """
        import numpy as np

        of_rows = self.answers.sum(1) + self.before
        draws = round(min(max(batches, FEWEST_DRAWS), DRAWS))
        drawn = np.random.default_rng(0).integers(0, len(of_rows), (draws, max(1, round(batch))))
        most = float(of_rows[drawn].mean(1).max())
        return batch * float(of_rows.mean()), batch * most

    def of_batch_by_prompt(self, batch: float) -> tuple[float, float]:
        """The same where rows of one prompt come into one batch, and long texts beside long ones."""
        on_one = max(1.0, self.count / self.prompts) if self.prompts else 1.0
        of_rows = self.answers.sum(1) + self.before / min(on_one, max(1.0, batch))
        of_rows.sort()
        size = max(1, round(batch / max(batch, self.count) * len(of_rows)))
        return batch * float(of_rows.mean()), batch * float(of_rows[-size:].mean())


@dataclass(frozen=True)
class Held:
    """A model in a rank's memory: whether it is trained there, and whether it is whole under any engine."""

    model: Architecture
    is_trained: bool = False
    is_whole: bool = False


@dataclass(frozen=True)
class Work:
    """All that a step does.

    `libraries` says what is imported for it. `prepared` texts are tokenised first, and `handled` rows pass through
    Python one by one; `figures` are drawn. `leaves` is the artifact: a model, or bytes of rows.
    """

    libraries: Libraries = "rows"
    held: tuple[Held, ...] = ()
    passes: tuple[Pass, ...] = ()
    updates: float = 0
    prepared: float = 0
    handled: float = 0
    figures: float = 0
    leaves: Architecture | float = 0.0
    draws: tuple[Drawing, ...] = ()
    assumed: tuple[str, ...] = field(default=())
