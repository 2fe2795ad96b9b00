"""What rewards say of a policy that is in memory: completions of prompts, drawn and scored in one go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data.forms import PROMPTS
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import cut
from trimtab.pipelines.recording import tracking
from trimtab.rewards import RewardFailure, outcomes

if TYPE_CHECKING:
    import trl

    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.sampling.settings import Sampling
    from trimtab.pipelines.scoring.combining import Combination


class PolicyWorth:
    """Draws as `sampling` says, and asks those of the `rewards` that the combination names.

    `key` is where the step has the `prompts`, which go through its audit.
    """

    def __init__(
        self,
        step: Step,
        key: str,
        prompts: Any,
        *,
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
        self.rows, counts = audit.kept(prompts, key, PROMPTS)
        tracking.log(counts)
        self.tokenizer = transformers_engine.load_tokenizer(model)
        self.config = transformers_engine.settings(model, self.tokenizer, sampling.generate)
        self.ids = prompting.token_ids(step, self.tokenizer, self.rows, prompts, self.place)
        self.lengths = prompting.lengths(self.ids)
        self.order = np.argsort(self.lengths, kind="stable")
        self.rewards = {
            name: schema.load_reward(cut(rewards[name]).reward, (*step.path, "rewards", name))
            for name in combination.weights
        }

    def mean(self, policy: Any, seed: int) -> float:
        """The mean over prompts; the same seed draws with the same random numbers."""
        of_prompts = self.by_prompt(policy, seed)
        return sum(of_prompts) / len(of_prompts)

    def by_prompt(self, policy: Any, seed: int) -> list[float]:
        """The mean score of each prompt's completions.

        Raises RecipeError where the rewards abstain from all completions of a prompt, and RewardFailure.
        """
        drawn = self._drawn(policy, seed)
        columns = self.rows.select([row["prompt_index"] for row in drawn]).to_dict()
        asked, answers = columns.pop("prompt"), [row["completion"] for row in drawn]
        told: dict[str, list[float | None]] = {}
        for name, reward in self.rewards.items():
            told[name] = []
            for outcome in outcomes(reward, asked, answers, name=name, **columns):
                if isinstance(outcome, RewardFailure):
                    raise outcome
                told[name].append(outcome)
        by_prompt: dict[int, list[float]] = {}
        for number, row in enumerate(drawn):
            score = self.combination({name: scores[number] for name, scores in told.items()})
            if score is not None:
                by_prompt.setdefault(row["prompt_index"], []).append(score)
        if silent := len(self.ids) - len(by_prompt):
            raise RecipeError(f"the rewards abstain from all completions of {silent} prompts", self.place)
        return [sum(scores) / len(scores) for _, scores in sorted(by_prompt.items())]

    def _drawn(self, policy: Any, seed: int) -> list[dict[str, Any]]:
        from trimtab.pipelines.sampling.completing import Completing

        count = self.sampling.num_generations
        completing = Completing(
            model=self.model,
            config=self.config,
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
        return [row for part in range(completing.count) for row in completing(part)]
