"""Kind `rank_search`: how much of each layer's training to keep, by ranks of what a reward says, with no gradient.

    rank_search: {model: {model_name_or_path: $dpo}, base: $sft, prompts: ..., rewards: {gold: {...}}, reward: gold}
    rank_search: {..., method: random}          # the control: random search at the same number of policies asked about

The weights are W_l = base_l + s_l (model_l - base_l), one s for each layer and one for what is in none: the scale
vector of an adapter, of whole models too. It begins at s = 1, which is `model`. In each round `points` vectors around
where it stands are ranked, the best `ranked` in order, and moved along what the ranks say, by a line search of `line`
steps that ranks decide, too: ZO-RankSGD (arXiv 2303.03751; pipelines/algorithms/ranked_steps.py). A vector is ranked
by the mean reward of completions of all prompts, drawn with the same random numbers for all vectors of a round; only
the order is used, so any reward will do, a judge's grades as well.

What was asked stands in `ranks.jsonl` in the step's folder: a run that is killed asks none of it again. The artifact
is a complete model; `scales.json` has the vector. With `eval_prompts`, `gain/mean` is the reward there minus that of
`model`, paired by prompt, with its standard error: on the prompts of the search itself it would flatter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import Drawing
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import ModelName
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.recording import locks, tracking
from trimtab.pipelines.recording.heard import Heard
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.sampling import generation
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.scoring import readers
from trimtab.pipelines.scoring.combining import Combination, Missing
from trimtab.pipelines.scoring.policy_worth import PolicyWorth
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import inputs, lineage

if TYPE_CHECKING:
    import numpy as np

    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

ASKED = "ranks.jsonl"


@dataclass(kw_only=True)
class RankSearch(Sampling, Stage):
    """`mu` is the spread of the ranked vectors, and `stride` the longest step of the line search, both in units of s.

    A round asks about `points` + `line` + 1 policies. `base` has the architecture and vocabulary of `model`.
    """

    model: trl.ModelConfig
    base: ModelName
    prompts: Annotated[Data, PROMPTS]
    eval_prompts: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, RewardBlock]
    reward: str | dict[str, float]
    missing: Missing = "abstain"
    method: Literal["ranks", "random"] = "ranks"
    rounds: int = 10
    points: int = 8
    ranked: int = 8
    line: int = 4
    mu: float = 0.3
    stride: float = 1.0
    num_generations: int = 1

    head: ClassVar[Literal["words", "score"] | None] = "words"
    shows: ClassVar[Shows] = Shows(
        {"Reward of the best": ("reward/best",), "Scales": ("scale/*",)},
        results=("gain/mean", "reward/best"),
        compares=("gain/mean", "reward/best"),
    )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        few = {"rounds": 1, "points": 2, "ranked": 2, "line": 1}
        return {**super().small(block, miniature), **few, "num_generations": 1}

    def audit_of(self, step: Step) -> Audit:
        audit = inputs.audit(self.model, None, self.audit, step, room=self._longest)
        return readers.added(audit, self.rewards, lineage.ahead)

    def check(self, step: Step) -> None:
        if self.engine != "transformers":
            message = f"the policy changes at every point, which is for `engine: transformers`, got {self.engine}"
            raise RecipeError(message, (*step.path, "engine"))
        self.check_sampling(step)
        limits = {"rounds": 1, "points": 2, "ranked": 1, "line": 1}
        for key, least in limits.items():
            if getattr(self, key) < least:
                raise RecipeError(f"must be at least {least}, got {getattr(self, key)}", (*step.path, key))
        if self.ranked > self.points:
            raise RecipeError(f"must be at most `points`, {self.points}, got {self.ranked}", (*step.path, "ranked"))
        for key in ("mu", "stride"):
            if not getattr(self, key) > 0:
                raise RecipeError(f"must be above 0, got {getattr(self, key)}", (*step.path, key))
        Combination.of(self.reward, self.missing).check(self.rewards, (*step.path, "reward"))
        super().check(step)

    def work(self, known: Known) -> Work:
        model, prompts = known.model(self.model), known.rows("prompts")
        asked = self.rounds * (self.points + self.line + 1)
        count, lengths = prompts.count * self.num_generations * asked, known.lengths(self.model, self._longest)
        part = self.completions_of_part(count / asked)
        batch = self.sample_batch_size
        drawn = Drawing(model, prompts, count, batch, lengths, self._longest, self.num_generations, part)
        return Work("models", (Held(model), Held(model)), draws=(drawn,), handled=count, leaves=model)

    def makes(self) -> Any:
        return self.model

    def folders(self) -> Collection[str]:
        return ()

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise(columns=())  # a model, and no rows

    @property
    def _longest(self) -> int:
        return self.generate.get("max_new_tokens") or generation.MAX_NEW_TOKENS

    def run(self, step: Step) -> Metrics:
        import numpy as np
        from accelerate import PartialState

        from trimtab.pipelines.algorithms import ranked_steps
        from trimtab.pipelines.sampling.between import Between

        try:
            between = Between(self.model, self.base)
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "base")) from error
        worth = self._worth("prompts", step)
        ranks = Heard(step.dir / ASKED)
        before = iter(locks.of_main(lambda: list(ranks)))
        heard: list[list[float]] = []
        finished = 0

        def oracle(vectors: Sequence[np.ndarray], count: int) -> list[int]:
            """Ranks policies, or says again what a launch before has heard; all of a round are drawn alike."""
            told = next(before, None)
            if told is None:
                told = [worth.mean(between.at(vector), step.seed + finished) for vector in vectors]
                if PartialState().is_main_process:
                    ranks.add(told)
            heard.append(told)
            return np.argsort(-np.array(told), kind="stable")[:count].tolist()

        settings = ranked_steps.Settings(self.points, self.ranked, self.mu, self.stride, self.line, self.method)
        start = np.ones(len(between.names))
        metrics: Metrics = {}
        rounds = ranked_steps.search(oracle, start, settings, np.random.default_rng(step.seed))
        for number, one in enumerate(islice(rounds, self.rounds), start=1):
            scales = dict(zip(between.names, one.x.tolist(), strict=True))
            distance = float(np.linalg.norm(one.x - start))
            metrics = {"reward/best": max(heard[-1]), "asked": one.asked, "distance": distance}
            named = {f"scale/{name}": scale for name, scale in scales.items()}
            tracking.log({**metrics, "length": one.length, **named}, number)
            finished = number
        if self.eval_prompts is not None:
            held_out = self._worth("eval_prompts", step)
            new, old = (held_out.by_prompt(between.at(scales), step.seed) for scales in (one.x, start))
            gaps = [after - before for after, before in zip(new, old, strict=True)]
            metrics["gain/mean"], metrics["gain/stderr"] = statistics.mean_stderr(gaps)
        if PartialState().is_main_process:
            between.save(one.x, step.output)
            (step.output / "scales.json").write_text(json.dumps(scales, indent=1) + "\n")
        return metrics

    def _worth(self, key: str, step: Step) -> PolicyWorth:
        return PolicyWorth(
            step,
            key,
            getattr(self, key),
            model=self.model,
            sampling=self,
            audit=self.audit_of(step),
            rewards=self.rewards,
            combination=Combination.of(self.reward, self.missing),
        )
