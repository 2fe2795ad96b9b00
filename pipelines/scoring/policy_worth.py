"""What rewards say of a policy that is in memory: completions of prompts, drawn and scored in one go."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data.forms import PROMPTS
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import cut
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.scoring.combining import Combination
from trimtab.rewards import RewardFailure, outcomes

if TYPE_CHECKING:
    import trl

    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.sampling.settings import Sampling


class PolicyWorth:
    """Draws as `sampling` says, and asks the `rewards`, of which the combination is what a completion is worth.

    `key` is where the step has the `prompts`, which go through its audit; `held_out` are others that judge them.
    """

    def __init__(
        self,
        step: Step,
        key: str,
        prompts: Any,
        *,
        held_out: Any = None,
        model: trl.ModelConfig,
        sampling: Sampling,
        audit: Audit,
        rewards: Mapping[str, Any],
        combination: Combination,
    ):
        import numpy as np

        from trimtab.pipelines.sampling import prompts as prompting
        from trimtab.pipelines.sampling import transformers_engine

        self.place = (*step.path, key)
        self.model, self.sampling, self.combination = model, sampling, combination
        self.rows, counts = audit.kept(prompts, key, PROMPTS, held_out)
        tracking.log(counts)
        self.tokenizer = transformers_engine.load_tokenizer(model)
        self.ids = prompting.token_ids(step, self.tokenizer, self.rows, prompts, self.place)
        self.lengths = prompting.lengths(self.ids)
        self.order = np.argsort(self.lengths, kind="stable")
        self.rewards = {
            name: schema.load_reward(cut(rewards[name]).reward, (*step.path, "rewards", name)) for name in rewards
        }

    def by_prompt(self, rows: Sequence[Mapping[str, Any]]) -> list[float]:
        """The mean score of each prompt's completions.

        Raises RecipeError where the rewards abstain from all completions of a prompt, and RewardFailure.
        """
        by_prompt: dict[int, list[float]] = {}
        for row, score in zip(rows, self._scores(rows, self.combination), strict=True):
            if score is not None:
                by_prompt.setdefault(row["prompt_index"], []).append(score)
        if silent := len(self.ids) - len(by_prompt):
            raise RecipeError(f"the rewards abstain from all completions of {silent} prompts", self.place)
        return [sum(scores) / len(scores) for _, scores in sorted(by_prompt.items())]

    def best(self, rows: Sequence[Mapping[str, Any]], weights: Mapping[str, float]) -> list[Mapping[str, Any]]:
        """The completion of each prompt that has most by a sum of rewards, the first one of several that have."""
        best: dict[int, tuple[float, Mapping[str, Any]]] = {}
        for row, score in zip(rows, self._scores(rows, Combination(weights)), strict=True):
            value = -math.inf if score is None else score
            if row["prompt_index"] not in best or value > best[row["prompt_index"]][0]:
                best[row["prompt_index"]] = (value, row)
        return [row for _, (_, row) in sorted(best.items())]

    def _scores(self, rows: Sequence[Mapping[str, Any]], combination: Combination) -> list[float | None]:
        """The sum of rewards of each completion."""
        columns = self.rows.select([row["prompt_index"] for row in rows]).to_dict()
        asked, answers = columns.pop("prompt"), [row["completion"] for row in rows]
        told: dict[str, list[float | None]] = {}
        for name in combination.weights:
            told[name] = []
            for outcome in outcomes(self.rewards[name], asked, answers, name=name, **columns):
                if isinstance(outcome, RewardFailure):
                    raise outcome
                told[name].append(outcome)
        return [combination({name: scores[number] for name, scores in told.items()}) for number in range(len(rows))]

    def drawn(self, policy: Any, seed: int, drawing: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """Completions in the order of `prompt_index`, the number of a prompt; equal seeds draw equal random numbers.

        `drawing` are keys that stand in the place of those of `generate`.
        """
        from trimtab.pipelines.sampling import transformers_engine
        from trimtab.pipelines.sampling.completing import Completing

        count = self.sampling.num_generations
        completing = Completing(
            model=self.model,
            config=transformers_engine.settings(
                self.model, self.tokenizer, {**self.sampling.generate, **(drawing or {})}
            ),
            tokenizer=self.tokenizer,
            prompts=self.ids,
            order=self.order,
            longest=int(self.lengths.max()),
            num_generations=count,
            size=self.sampling.completions_of_part(len(self.ids) * count),
            batch_size=self.sampling.sample_batch_size,
            seed=seed,
            is_text=isinstance(self.rows[0]["prompt"], str),
            path=self.place,
            policy=policy,
        )
        rows = [row for part in range(completing.count) for row in completing(part)]
        return sorted(rows, key=lambda row: row["prompt_index"])
