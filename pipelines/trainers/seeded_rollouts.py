"""Rollouts whose completions are drawn by seeds of their own, by a sampler that is given to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate.utils import DistributedType
from transformers import GenerationConfig

from trimtab.pipelines.trainers.resumable_rollouts import ResumableRollouts
from trimtab.pipelines.trainers.seams.trl import unwrap_model_for_generation
from trimtab.rewards._arithmetic import in_float32

# policy, prompts, a seed for each, what is asked, and who else steps with it: see sampling/rollouts.py
Sampler = Callable[..., list[list[int]] | None]
TRAINING, EVALUATION = 0, 1


class SeededRollouts(ResumableRollouts):
    """A mixin that samples with `sampler`, where there is one that does all that is asked.

    A completion is drawn by the run's seed, the rollout's number and its place in the rollout of all ranks, so a
    rollout is the same on any number of them, and in a run that was resumed.
    """

    sampler: Sampler | None = None
    calls: tuple[tuple[int, ...], int] = ((), 0)  # of the rollout at hand: its number, and how often it has sampled

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, *others, **more):
        completions = None if images is not None or multimodal_fields else self._drawn(prompt_ids)
        if completions is None:
            return super()._generate_single_turn(prompt_ids, images, multimodal_fields, *others, **more)
        return self.handed_back(completions)

    def handed_back(self, completions: list[list[int]]) -> Any:
        """Completions as trl's trainer takes them: GRPO's with log-probabilities, where the sampler says some."""
        return completions, None

    def _drawn(self, prompts: list[list[int]]) -> list[list[int]] | None:
        """What the sampler draws; None where there is none, or it does not do what is asked."""
        if self.sampler is None or self._samples_elsewhere():
            return None
        seeds = self._seeds(len(prompts))
        is_rounded = self.args.bf16 or self.args.fp16
        with self._whole_policy() as policy, nullcontext() if is_rounded else in_float32():
            config = _filled_in(self.generation_config, policy.generation_config)
            return self.sampler(policy, prompts, seeds, config, self._any_rank())

    def _samples_elsewhere(self) -> bool:
        of_old = self.accelerator.distributed_type is DistributedType.FSDP and not self.accelerator.is_fsdp2
        return self.use_vllm or self.use_transformers_continuous_batching or of_old

    def _seeds(self, count: int) -> list[tuple[int, ...]]:
        training = self.model.training
        number = self._step // self.micro_batches_of_rollout()
        rollout = (TRAINING, number) if training else (EVALUATION, self.state.global_step)
        called = self.calls[1] + 1 if self.calls[0] == rollout else 0
        self.calls = rollout, called
        first = self.accelerator.process_index * count
        return [(self.args.seed, *rollout, called, first + place) for place in range(count)]

    def _whole_policy(self) -> Any:
        """The policy without what an engine has wrapped it in, whole where the engine gathers it."""
        return unwrap_model_for_generation(
            self.model_wrapped,
            self.accelerator,
            gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            generation_kwargs=self.generation_kwargs,
            gradient_checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
        )

    def _any_rank(self) -> Callable[[bool], bool] | None:
        """Whether any rank says yes, given what this one says; None where ranks sample by themselves.

        Where a policy is in parts at all times, every pass through it is one of all ranks.
        """
        sharded = self.accelerator.distributed_type is DistributedType.FSDP
        sharded |= self.is_deepspeed_enabled and not self.args.ds3_gather_for_generation
        if not sharded or self.accelerator.num_processes == 1:
            return None

        def any_rank(said: bool) -> bool:
            flag = torch.tensor([float(said)], device=self.accelerator.device)
            return bool(self.accelerator.reduce(flag) > 0)

        return any_rank


def _filled_in(config: GenerationConfig, defaults: GenerationConfig) -> GenerationConfig:
    """The configuration, with what it leaves open from the model's own, as transformers fills it in."""
    return GenerationConfig(**defaults.to_diff_dict() | config.to_diff_dict())
