"""Kind `rank_search`: a few numbers of a policy moved by ranks of what it says, with no gradient and no value.

    rank_search: {model: {model_name_or_path: $dpo}, base: $sft, prompts: ..., rewards: {gold: {...}}, reward: gold}
    rank_search: {..., method: random}          # the control: random search at the same number of policies asked about
    rank_search: {..., oracle: people}          # people put the policies in order, in the page of `label`

What moves is one of

    base: $sft                                  # how much of each layer's training is kept
    tokens: ["<|a|>", "<|b|>"]                  # a soft prompt: the embeddings of these tokens
    settings: {temperature: [0.3, 1.5], top_p: [0.5, 1]}                   # of `generate`, between these ends
    choose: {helpful: 1, brief: 0.1}            # weights of rewards by which the best of num_generations is taken

With `base` the weights are W_l = base_l + s_l (model_l - base_l), one s for each layer and one for what is in none:
the scale vector of an adapter, of whole models too; it begins at s = 1, which is `model`. Tokens are those of the
vocabulary that prompts have in them (`add_tokens` adds, `preface` writes them); they move in units of the standard
deviation of all embeddings. Settings move in shares of their range, weights by factors e^v, from what is given.

In each round `points` vectors around where it stands are ranked, the best `ranked` in order, and moved along what the
ranks say, by a line search of `line` steps that ranks decide, too: ZO-RankSGD (arXiv 2303.03751;
pipelines/algorithms/ranked_steps.py). A vector is ranked by the mean reward of completions of all prompts, drawn with
the same random numbers for all vectors of a round; only the order is used, so any reward will do, a judge's grades as
well. With `oracle: people` a round waits twice for them: for the order of the points, and for the best of the line
search, each prompt with the different answers to it side by side; a vector is ranked by the share of comparisons won.

What was asked stands in `ranks.jsonl` in the step's folder: a run that is killed asks none of it again. The artifact
is a complete model (settings are in its generation_config.json, too); `vector.json` has the numbers. With
`eval_prompts`, `gain/mean` is the reward there minus that of the start, paired by prompt, with its standard error: on
the prompts of the search itself it would flatter.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.algorithms import statistics
from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import Drawing
from trimtab.pipelines.forecasting.work import Held, Work
from trimtab.pipelines.labelling import policies
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import ModelName
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.recording import locks, tracking
from trimtab.pipelines.recording.heard import Heard
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.sampling import generation, moved_settings
from trimtab.pipelines.sampling.moved import Moved
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
MOST = 9  # answers that people see side by side: the keys of a keyboard


@dataclass(kw_only=True)
class RankSearch(Sampling, Stage):
    """`mu` is the spread of the ranked vectors, and `stride` the longest step of the line search.

    A round asks about `points` + `line` + 1 policies. `base` has the architecture and vocabulary of `model`. `raters`
    and `instructions` are those of people.
    """

    model: trl.ModelConfig
    base: ModelName | None = None
    tokens: list[str] = field(default_factory=list)
    settings: dict[str, list[float]] = field(default_factory=dict)
    choose: dict[str, float] = field(default_factory=dict)
    prompts: Annotated[Data, PROMPTS]
    eval_prompts: Annotated[Data | None, PROMPTS] = None
    rewards: dict[str, RewardBlock] = field(default_factory=dict)
    reward: str | dict[str, float] = field(default_factory=dict)
    missing: Missing = "abstain"
    oracle: Literal["rewards", "people"] = "rewards"
    raters: int = 1
    instructions: str = "Which answer is better?"
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
        {"Worth of the best": ("reward/best",), "Numbers": ("vector/*",)},
        results=("gain/mean", "reward/best"),
        compares=("gain/mean", "reward/best"),
    )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        few = {"rounds": 1, "points": 2, "ranked": 2, "line": 1, "oracle": "rewards"}  # nobody is asked
        if block.get("oracle") == "people" and not block.get("reward"):
            few |= {
                "rewards": {**block.get("rewards", {}), "brief": {"kind": "length", "target": 5}},
                "reward": "brief",
            }
        answers = {"num_generations": 2 if block.get("choose") else 1}
        return {**super().small(block, miniature), **few, **answers}

    def audit_of(self, step: Step) -> Audit:
        audit = inputs.audit(self.model, None, self.audit, step, room=self._longest)
        return readers.added(audit, self.rewards, lineage.ahead)

    def check(self, step: Step) -> None:
        if self.engine != "transformers":
            message = f"the policy changes at every point, which is for `engine: transformers`, got {self.engine}"
            raise RecipeError(message, (*step.path, "engine"))
        self.check_sampling(step)
        self._check_numbers(step)
        moved = [key for key in ("base", "tokens", "settings", "choose") if getattr(self, key)]
        if len(moved) != 1:
            told = f"got {' and '.join(moved)}" if moved else "got none"
            raise RecipeError(f"name one of base, tokens, settings and choose, which is what moves: {told}", step.path)
        for key, wrong in moved_settings.wrong(self.settings).items():
            raise RecipeError(wrong, (*step.path, "settings", key))
        if self.settings and self.generate.get("do_sample") is False:
            raise RecipeError("settings of a draw change nothing without one", (*step.path, "generate", "do_sample"))
        if self.choose and self.num_generations < 2:
            raise RecipeError("one answer leaves no choice: raise it", (*step.path, "num_generations"))
        Combination(self.choose).check(self.rewards, (*step.path, "choose"))
        combination = Combination.of(self.reward, self.missing)
        combination.check(self.rewards, (*step.path, "reward"))
        if not combination.weights and (self.oracle == "rewards" or self.eval_prompts is not None):
            raise RecipeError("name the reward that says which policy is better", (*step.path, "reward"))
        if self.oracle == "people":
            self._check_people(step)
        super().check(step)

    def _check_numbers(self, step: Step) -> None:
        for key, least in {"rounds": 1, "points": 2, "ranked": 1, "line": 1, "raters": 1}.items():
            if getattr(self, key) < least:
                raise RecipeError(f"must be at least {least}, got {getattr(self, key)}", (*step.path, key))
        if self.ranked > self.points:
            raise RecipeError(f"must be at most `points`, {self.points}, got {self.ranked}", (*step.path, "ranked"))
        for key in ("mu", "stride"):
            if not getattr(self, key) > 0:
                raise RecipeError(f"must be above 0, got {getattr(self, key)}", (*step.path, key))

    def _check_people(self, step: Step) -> None:
        shown = self.line + 1 + (self.points if self.method == "random" else 0)
        if max(self.points, shown) > MOST:
            message = f"people see {max(self.points, shown)} answers side by side, and {MOST} at most: ask about fewer"
            raise RecipeError(message, (*step.path, "points" if self.points > self.line else "line"))
        if self.num_generations > 1 and not self.choose:
            message = f"people compare one answer of each policy, got {self.num_generations}"
            raise RecipeError(message, (*step.path, "num_generations"))

    def work(self, known: Known) -> Work:
        model, prompts = known.model(self.model), known.rows("prompts")
        asked = self.rounds * (self.points + self.line + 1)
        count, lengths = prompts.count * self.num_generations * asked, known.lengths(self.model, self._longest)
        part = self.completions_of_part(count / asked)
        batch = self.sample_batch_size
        drawn = Drawing(model, prompts, count, batch, lengths, self._longest, self.num_generations, part)
        held = (Held(model), Held(model)) if self.base else (Held(model),)
        return Work("models", held, draws=(drawn,), handled=count, leaves=model)

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

        moved = self._moved(step)
        worth = self._worth("prompts", step)
        ranks = Heard(step.dir / ASKED)
        before = iter(locks.of_main(lambda: list(ranks)))
        heard: list[list[float]] = []
        finished = 0

        def oracle(vectors: Sequence[np.ndarray], count: int) -> list[int]:
            """Ranks policies, or says again what a launch before has heard; all of a round are drawn alike."""
            told = next(before, None)
            if told is None:
                drawn = [self._drawn(worth, moved, vector, step.seed + finished) for vector in vectors]
                told = self._told(worth, drawn, count, step)
                if PartialState().is_main_process:
                    ranks.add(told)
            heard.append(told)
            return np.argsort(-np.array(told), kind="stable")[:count].tolist()

        settings = ranked_steps.Settings(self.points, self.ranked, self.mu, self.stride, self.line, self.method)
        metrics: Metrics = {}
        rounds = ranked_steps.search(oracle, moved.start, settings, np.random.default_rng(step.seed))
        for number, one in enumerate(islice(rounds, self.rounds), start=1):
            distance = float(np.linalg.norm(one.x - moved.start))
            metrics = {"reward/best": max(heard[-1]), "asked": one.asked, "distance": distance}
            named = {f"vector/{name}": value for name, value in moved.values(one.x).items() if name in moved.names}
            tracking.log({**metrics, "length": one.length, **named}, number)
            finished = number
        if self.eval_prompts is not None:
            held_out = self._worth("eval_prompts", step)
            rows = [self._drawn(held_out, moved, vector, step.seed) for vector in (one.x, moved.start)]
            new, old = map(held_out.by_prompt, rows)
            gaps = [after - before for after, before in zip(new, old, strict=True)]
            metrics["gain/mean"], metrics["gain/stderr"] = statistics.mean_stderr(gaps)
        if PartialState().is_main_process:
            moved.save(one.x, step.output)
            (step.output / "vector.json").write_text(json.dumps(moved.values(one.x), indent=1) + "\n")
        return metrics

    def _moved(self, step: Step) -> Moved:
        """What moves, where it begins."""
        from trimtab.pipelines.sampling.between import Between
        from trimtab.pipelines.sampling.moved_tokens import MovedTokens
        from trimtab.pipelines.sampling.moved_weights import MovedWeights

        if self.settings:
            return moved_settings.MovedSettings(self.model, self.settings, self.generate)
        if self.choose:
            return MovedWeights(self.model, self.choose)
        try:
            return MovedTokens(self.model, self.tokens) if self.tokens else Between(self.model, self.base or "")
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "tokens" if self.tokens else "base")) from error

    def _drawn(self, worth: PolicyWorth, moved: Moved, vector: np.ndarray, seed: int) -> Sequence[Mapping[str, Any]]:
        """What the policy of a vector says to all prompts."""
        rows = worth.drawn(moved.at(vector), seed, moved.drawing(vector))
        weights = moved.choosing(vector)
        return rows if weights is None else worth.best(rows, weights)

    def _told(
        self, worth: PolicyWorth, drawn: Sequence[Sequence[Mapping[str, Any]]], count: int, step: Step
    ) -> list[float]:
        """What each policy is worth by its answers, of which the best `count` are to be in order."""
        if self.oracle == "people":
            said = [[row["completion"] for row in rows] for rows in drawn]
            title, prompts = f"{step.recipe} {step.name}".strip(), worth.rows["prompt"][:]
            return policies.shares(step, title, self.instructions, self.raters, count, prompts, said)
        return [fmean(worth.by_prompt(rows)) for rows in drawn]

    def _worth(self, key: str, step: Step) -> PolicyWorth:
        combination = Combination.of(self.reward, self.missing)
        return PolicyWorth(
            step,
            key,
            getattr(self, key),
            held_out=self.held_out(key),
            model=self.model,
            sampling=self,
            audit=self.audit_of(step),
            rewards={name: self.rewards[name] for name in {**combination.weights, **self.choose}},
            combination=combination,
        )
