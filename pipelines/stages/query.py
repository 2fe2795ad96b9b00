"""Kind `query`: the pairs of answers that are worth a label: by a posterior, by disagreement, or at random.

    query: {completions: $sample, budget: 200, features: {kind: reward_model, path: $helpful}, labelled: $pair}
    query: {completions: $score, budget: 200, rule: disagreement}      # where the rewards in the scores differ most
    query: {completions: $score, budget: 200, rule: random}            # the control at the same price
    query: {completions: pairs.jsonl, budget: 200, features: {...}}    # pairs whose labels are not looked at

`rule: posterior` puts a Bradley-Terry head on the features that a frozen reward model's own head reads, with the
Laplace posterior of the `labelled` pairs (or none: then that of the prior, variance 1 / `ridge`). A pair's uncertainty
is the standard deviation of its gap in logits. Pairs are taken one after the other, the most uncertain first, each as
if those before it had been labelled; with `least` in their order instead, each that is above it, so that fewer than
the budget may be asked (arXiv 2310.14554; no more than `bound` can be). `disagreement` is the mean difference of the
gaps of two members, for scores of several rewards on one scale.

Of a prompt with several answers, `meet: drawn` takes two at random, and `thompson` the best answer by one draw of the
posterior (by one random member) against that of the policy `before`, or where there is none against the best other
answer by a second draw.

The dataset is for `label`: `prompt`, `completions` and `uncertainty`, or the rows of the pairs with that column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from trimtab.pipelines.algorithms import queries
from trimtab.pipelines.data import counting, grouping, loading, promises
from trimtab.pipelines.data.answers import Answers, first_of_prompts
from trimtab.pipelines.data.forms import COMPARED, COMPLETIONS, PREFERENCE, Data, Form
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import judged
from trimtab.pipelines.forecasting.work import Rows, Work
from trimtab.pipelines.planning import kinds, schema
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


ANSWERED = replace(COMPARED, columns=COMPARED.columns[::2])  # completions, or pairs


@dataclass(kw_only=True)
class Query(Stage):
    """`members` are rewards of the scores, all where none is named; `scale` is that of a draw of Thompson's."""

    completions: Annotated[Data, ANSWERED]
    budget: int
    rule: Literal["posterior", "disagreement", "random"] = "posterior"
    features: RewardBlock | None = None
    labelled: Annotated[Data | None, PREFERENCE] = None
    members: list[str] = field(default_factory=list)
    meet: Literal["drawn", "thompson"] = "drawn"
    before: Annotated[Data | None, COMPLETIONS] = None
    least: float | None = None
    ridge: float = 1.0
    scale: float = 1.0

    writes: ClassVar[tuple[str, ...]] = ("prompt", "completions", "uncertainty")
    shows: ClassVar[Shows] = Shows(results=("asked", "uncertainty/asked"))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "budget": 4, "least": None}

    def reads(self) -> dict[str, Form]:
        scored = {"completions": COMPLETIONS.where("prompt_index", "scores")} if self._is_by_members else {}
        return super().reads() | scored

    @property
    def _is_by_members(self) -> bool:
        return self.rule == "disagreement" or (self.meet == "thompson" and self.features is None)

    def check(self, step: Step) -> None:
        positive = ("budget", "ridge", "scale", *(["least"] if self.least is not None else []))
        for key in positive:
            if not getattr(self, key) > 0:
                raise RecipeError(f"must be above 0, got {getattr(self, key)}", (*step.path, key))
        if self.rule == "posterior" and self.features is None:
            message = "name the reward whose features the head reads: {kind: reward_model, path: ...}"
            raise RecipeError(message, (*step.path, "features"))
        if self.features is not None:
            kind = self.features["kind"]
            if not hasattr(kinds.find(kinds.REWARDS, kind, (*step.path, "features")), "features"):
                message = f"a reward of kind {kind!r} has no features: take a `reward_model`"
                raise RecipeError(message, (*step.path, "features", "kind"))
        if self.least is not None and self.rule != "posterior":
            raise RecipeError(f"is for `rule: posterior`, and the rule is {self.rule}", (*step.path, "least"))
        if self.before is not None and self.meet != "thompson":
            raise RecipeError("is whom `meet: thompson` meets: say that, or leave it out", (*step.path, "before"))
        if promises.of(self.completions, step).answers == 1 and self.before is None:
            message = "every prompt will have one answer, and a pair needs two: raise `num_generations`"
            raise RecipeError(message, (*step.path, "completions"))
        super().check(step)

    def work(self, known: Known) -> Work:
        rows = known.rows("completions")
        judges = known.rewards({"features": self.features}) if self.features else ()
        passes = tuple(judged(judge.model, rows, rows.count) for judge in judges)
        return Work("models" if judges else "rows", tuple(judges[:1]), passes, handled=rows.count)

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(rows=self.budget)

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        rows = known.rows("completions")
        count = min(self.budget, rows.count)
        return Rows(count, rows.tokens, count, rows.answer, rows.assumed, rows.asked)

    def run(self, step: Step) -> Metrics:
        import numpy as np

        from trimtab.pipelines.data.writing import write_rows

        rows = counting.rows(self.completions, step, "completions")
        sources = [rows]
        if self.before is not None:
            sources.append(first_of_prompts(loading.load(self.before, (*step.path, "before"))))
        answers = Answers(sources)
        against = _against(answers)
        posterior, features = self._head(answers, step) if self.features else (None, np.zeros((len(answers), 0)))
        scores = self._scores(answers, step) if self._is_by_members else np.zeros((len(answers), 0))
        draws = self._draws(posterior, features, scores, step) if self.meet == "thompson" else None
        rng = Random(step.seed)
        met = (_meeting(group, answers, draws, against, rng) for group in _groups(rows, answers))
        pairs = [pair for pair in met if pair]
        if not pairs:
            message = "no prompt has two different answers: sample more of them, or at a higher temperature"
            raise RecipeError(message, (*step.path, "completions"))
        pairs = list({_words(answers, *pair): pair for pair in pairs}.values())  # nobody is asked twice
        rng.shuffle(pairs)
        one, two = (list(places) for places in zip(*pairs, strict=True))
        gaps = features[one] - features[two]
        uncertainty = np.zeros(len(pairs)) if posterior is None else posterior.spread(gaps)
        metrics: Metrics = {"pairs": len(pairs)}
        if self.rule == "disagreement":
            uncertainty = np.array(list(map(queries.disagreement, (scores[one] - scores[two]).tolist())))
            taken = np.argsort(-uncertainty, kind="stable")[: self.budget].tolist()
        elif self.rule == "random" or posterior is None:
            taken = list(range(min(self.budget, len(pairs))))
        elif self.least is None:
            taken = queries.widest(posterior, gaps, self.budget)
        else:
            taken = queries.above(posterior, gaps, self.least, self.budget)
            if not taken:
                message = f"no pair is above it: the most uncertain one is at {uncertainty.max():.3g}"
                raise RecipeError(message, (*step.path, "least"))
        asked = ({**_row(answers, *pairs[number]), "uncertainty": float(uncertainty[number])} for number in taken)
        metrics["asked"] = write_rows(step, asked)
        means = {"all": uncertainty.mean(), "asked": uncertainty[taken].mean()}
        return metrics | {f"uncertainty/{name}": float(mean) for name, mean in means.items()}

    def _head(self, answers: Answers, step: Step) -> tuple[queries.Posterior, np.ndarray]:
        """The posterior after the labels that there are, and every answer's features in units of their spread."""
        import numpy as np

        place = (*step.path, "features")
        reward = schema.load_reward(cut(self.features or {}).reward, place)

        def told(prompts: list[Any], completions: list[Any]) -> np.ndarray:
            try:
                return np.array(reward.features(prompts, completions), dtype=np.float64)
            except ValueError as error:
                raise RecipeError(str(error), place) from error

        features = np.concatenate([told(*batch) for batch in answers.batches()])
        spread = features.std(0)
        units = np.where(spread > 0, spread, 1.0) * np.sqrt(features.shape[1])
        posterior = queries.Posterior(features.shape[1], self.ridge)
        if self.labelled is not None:
            known = loading.load(self.labelled, (*step.path, "labelled"))
            better, worse = (told(known["prompt"][:], known[name][:]) for name in ("chosen", "rejected"))
            posterior.fit((better - worse) / units, np.ones(len(better)))
        return posterior, features / units

    def _scores(self, answers: Answers, step: Step) -> np.ndarray:
        """The members' scores, (answers, members); where one has none, it gives the mean of the others."""
        import numpy as np

        there = list(answers.of(0)[0].get("scores") or {})
        for name in self.members:
            if name not in there:
                message = f"the completions have no scores by {name!r}{suggest(name, there)} (but {', '.join(there)})"
                raise RecipeError(message, (*step.path, "members"))
        names = self.members or there
        if len(names) < 2:
            raise RecipeError("one reward agrees with itself: score by several", (*step.path, "members"))
        table = [[(scores or {}).get(name) for name in names] for scores in answers.column("scores")]
        scores = np.array(table, dtype=np.float64)
        silent = np.isnan(scores)
        known = np.where(silent, 0.0, scores).sum(1) / np.maximum(1, (~silent).sum(1))
        return np.where(silent, known[:, None], scores)

    def _draws(self, posterior: Any, features: np.ndarray, scores: np.ndarray, step: Step) -> np.ndarray:
        """The scores of all answers by two draws: of the posterior, or of the members."""
        import numpy as np

        rng = np.random.default_rng(step.seed)
        if posterior is not None:
            return np.array([features @ posterior.draw(rng, self.scale) for _ in range(2)])
        return scores[:, rng.choice(scores.shape[1], 2, replace=False)].T


def _against(answers: Answers) -> dict[int, int]:
    """The place of the answer of the policy before to each prompt."""
    return {answers.asks[place]: place for place, source in enumerate(answers.source) if source}


def _groups(rows: Dataset, answers: Answers) -> Iterator[list[int]]:
    """The places of the different answers to each prompt, or of those of each pair."""
    if "completion" not in rows.column_names:
        yield from ([place, place + 1] for place in range(0, 2 * len(rows), 2))
        return
    groups = grouping.by_column(rows, "prompt_index")
    start = 0
    for end in groups.ends.tolist():
        places = groups.order[start:end].tolist()
        yield list({answers.says[place]: place for place in reversed(places)}.values())[::-1]
        start = end


def _meeting(
    group: list[int], answers: Answers, draws: np.ndarray | None, against: Mapping[int, int], rng: Random
) -> tuple[int, int] | None:
    """The two answers of a prompt that meet, or None where there are no two."""
    other = against.get(answers.asks[group[0]])
    if draws is not None and other is not None:
        best = group[int(draws[0, group].argmax())]
        return (best, other) if answers.says[best] != answers.says[other] else None
    if len(group) < 2:
        return None
    if draws is None:
        one, two = rng.sample(group, 2)
    else:
        one, two = (group[place] for place in queries.contenders(draws[0, group], draws[1, group]))
    return one, two


def _words(answers: Answers, one: int, two: int) -> tuple[int, frozenset[int]]:
    return answers.asks[one], frozenset(answers.says[place] for place in (one, two))


def _row(answers: Answers, one: int, two: int) -> dict[str, Any]:
    """The row of two answers: that of a pair as it is, else a prompt with both."""
    row, answer = answers.of(one)
    if "completion" not in row:
        return row
    kept = {key: row[key] for key in ("prompt", *TEMPLATED) if key in row}
    return {**kept, "completions": [answer, answers.of(two)[1]]}
