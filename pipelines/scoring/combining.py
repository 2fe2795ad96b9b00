"""Several scores of a completion as one: what `reward` and `missing` of a stage say, wherever scores are summed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.planning.errors import RecipeError, suggest

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

Missing = Literal["abstain", "ignore"]
Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Combination:
    """A weighted sum of scores by the rewards' names, in the sum of the rewards' units.

    Where a reward has abstained from a completion there is no sum of it, or with `missing: ignore` that of the rewards
    that spoke; there is none in either case where all have abstained.
    """

    weights: Mapping[str, float]
    missing: Missing = "abstain"

    @classmethod
    def of(cls, reward: str | Mapping[str, float], missing: Missing = "abstain") -> Combination:
        """The combination that a stage's `reward` names: one reward, or weights of several."""
        return cls({reward: 1.0} if isinstance(reward, str) else reward, missing)

    def check(self, rewards: Collection[str], path: Sequence[str]) -> None:
        """Raises RecipeError, at `path`, for a reward that the scores lack."""
        for name in self.weights:
            if name not in rewards:
                known = ", ".join(sorted(rewards))
                raise RecipeError(
                    f"no reward {name!r} in the scores{suggest(name, rewards)} (there are: {known})", path
                )

    def check_ahead(self, step: Step, key: str = "reward") -> None:
        """Raises RecipeError for a reward that the scores lack which the steps above a step will have made."""
        above = [set(source.options["rewards"]) for source in step.inputs if "rewards" in source.options]
        if above:
            self.check(set.intersection(*above), (*step.path, key))

    def __call__(self, scores: Scores) -> float | None:
        return statistics.weighted(scores, self.weights, ignoring=self.missing == "ignore")

    def abstentions(self, scores: Iterable[Scores]) -> str:
        """Why completions have no sum, in words: how often each reward has abstained, and what to write."""
        rows = list(scores)
        silent = {name: sum(row[name] is None for row in rows) for name in self.weights}
        counts = [f"{name!r} abstained on {count} of {len(rows)}" for name, count in silent.items() if count]
        if not counts:
            return ""
        can_ignore = self.missing == "abstain" and any(
            self(row) is None and _has_any(row, self.weights) for row in rows
        )
        cure = "; `missing: ignore` sums the rewards that spoke" if can_ignore else ""
        return f"{' and '.join(counts)} completions{cure}"


def _has_any(scores: Scores, names: Iterable[str]) -> bool:
    return any(scores[name] is not None for name in names)


def missed(scores: Scores, least: Mapping[str, float]) -> list[str]:
    """The rewards of which a completion has no score, or less than it should have."""
    given = {name: scores[name] for name in least}
    return [name for name, score in given.items() if score is None or score < least[name]]
