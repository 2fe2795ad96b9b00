"""What a rater has said of one question, as it is kept, and what all of them say together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal, get_args

from trimtab.pipelines.algorithms import agreement
from trimtab.pipelines.labelling.questions import Question

Verdict = Literal["ranked", "tie", "skip"]
LONGEST = 40  # characters of a rater's name


@dataclass(frozen=True)
class Judgement:
    """`order` are places of answers, best first, empty for a tie and a skip. `shown` is the order on the screen."""

    question: str
    rater: str
    verdict: Verdict
    order: tuple[int, ...] = ()
    shown: tuple[int, ...] = ()
    seconds: float | None = None
    reason: str = ""
    at: str = ""

    @property
    def category(self) -> int | str:
        """What raters agree on or not: the best answer, or that there is none."""
        return self.order[0] if self.verdict == "ranked" else self.verdict

    def values(self) -> dict[str, Any]:
        """As it is kept in JSON."""
        return asdict(self)


def read(given: Any, questions: Mapping[str, Question], ranked: int) -> Judgement:
    """A judgement from JSON. Raises ValueError, with a sentence, for one that is none of these questions'."""
    if not isinstance(given, Mapping):
        raise ValueError(f"a judgement is an object, not {given!r:.60}")
    question = questions.get(given.get("question", ""))
    if question is None:
        raise ValueError(f"there is no question {given.get('question')!r:.60}: it was asked of other completions")
    places = set(range(len(question.answers)))
    order, shown = (tuple(given.get(key) or ()) for key in ("order", "shown"))
    rater, seconds = given.get("rater"), given.get("seconds")
    verdict: Any = given.get("verdict")
    if not isinstance(rater, str) or not rater.strip() or len(rater) > LONGEST:
        raise ValueError(f"`rater` is a name of 1 to {LONGEST} characters, not {rater!r:.60}")
    if verdict not in get_args(Verdict):
        raise ValueError(f"`verdict` is one of {', '.join(get_args(Verdict))}, not {verdict!r:.60}")
    named = min(ranked, len(places) - 1) if verdict == "ranked" else 0
    if len(order) < named or (named == 0 and order) or not _are_places(order, places):
        raise ValueError(f"`order` names {named} different answers of {len(places)} or more, not {list(order)!r:.60}")
    if shown and (not _are_places(shown, places) or len(shown) < len(places)):
        raise ValueError(f"`shown` is an order of {len(places)} answers, not {list(shown)!r:.60}")
    if seconds is not None and (type(seconds) not in (int, float) or not 0 <= seconds < float("inf")):
        raise ValueError(f"`seconds` is a number from 0 on, not {seconds!r:.60}")
    reason, at = str(given.get("reason") or ""), str(given.get("at") or "")
    return Judgement(question.id, rater.strip(), verdict, order, shown, seconds, reason, at)


def _are_places(order: Sequence[Any], places: set[int]) -> bool:
    return all(type(place) is int and place in places for place in order) and len(set(order)) == len(order)


def unreliable(judgements: Iterable[Judgement], questions: Mapping[str, Question], least: float) -> set[str]:
    """The raters who have answered fewer than that share of the questions with a known answer right."""
    return {rater for rater, right in _gold(judgements, questions).items() if sum(right) < least * len(right)}


def summary(judgements: Sequence[Judgement], questions: Mapping[str, Question]) -> dict[str, float]:
    """Agreement, the bias towards what was shown first, the median time, and known answers that were met."""
    from trimtab.pipelines.algorithms.statistics import wilson  # numpy, which a look at a run does not need

    ratings: dict[str, dict[str, int | str]] = {}
    for given in judgements:
        if given.verdict != "skip":
            ratings.setdefault(given.rater, {})[given.question] = given.category
    count = len(judgements)
    metrics: dict[str, float | None] = {
        "judgements": count,
        "raters": len({given.rater for given in judgements}),
        "ties": sum(given.verdict == "tie" for given in judgements) / count,
        "skips": sum(given.verdict == "skip" for given in judgements) / count,
        "agreement/krippendorff": agreement.krippendorff(ratings),
        "agreement/cohen": agreement.mean_cohen(ratings),
    }
    if firsts := [given.shown[0] == given.order[0] for given in judgements if given.shown and given.order]:
        even = [1 / len(given.shown) for given in judgements if given.shown and given.order]
        share = statistics.fmean(firsts)
        low, high = wilson(share, len(firsts))
        first = {"first": share, "first_low": low, "first_high": high, "even": statistics.fmean(even)}
        metrics |= {f"position/{name}": value for name, value in first.items()}
    if times := [given.seconds for given in judgements if given.seconds is not None]:
        metrics["seconds/median"] = statistics.median(times)
    if right := list(chain.from_iterable(_gold(judgements, questions).values())):
        metrics["gold/right"] = statistics.fmean(right)
    return {name: value for name, value in metrics.items() if value is not None}


def by_rater(judgements: Sequence[Judgement], questions: Mapping[str, Question]) -> dict[str, dict[str, float]]:
    """The numbers of each rater alone, without agreement."""
    given: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        given.setdefault(judgement.rater, []).append(judgement)
    return {rater: summary(theirs, questions) for rater, theirs in sorted(given.items())}


def _gold(judgements: Iterable[Judgement], questions: Mapping[str, Question]) -> dict[str, list[bool]]:
    """Whether each known answer was met, by rater; skips are none."""
    right: dict[str, list[bool]] = {}
    for given in judgements:
        gold = questions[given.question].gold
        if gold is not None and given.verdict != "skip":
            right.setdefault(given.rater, []).append(given.category == gold)
    return right
