"""Whether a training has learned: one that took fewer steps than planned, or changed nothing, is an error.

Before and after, the bits of every trainable weight are summed, which one pass over them costs. Where FSDP or ZeRO
split the weights, no rank has them whole: there the gradient alone tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.trainers.seams.engines import has_gradient, sharding
from trimtab.pipelines.training.arguments import NO_RATE, too_few_prompts

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a number -> a whole number of them


class AlreadyTrained(Exception):
    """A training went on from the checkpoint of its last step, which is loaded."""


class Learning(TrainerCallback):
    """Watches a trainer from before its training, when its model is still the step's input."""

    def __init__(self, trainer: Any):
        self.trainer = trainer
        self.start = None if sharding() else checksums(trainer.model)
        self.had_gradient = self.was_ended = False

    def on_epoch_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:  # transformers would take a step more
            raise AlreadyTrained

    def on_pre_optimizer_step(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if not self.had_gradient:  # one step with a gradient is enough, and costs the look at one weight
            self.had_gradient = has_gradient(self.trainer)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.was_ended = control.should_training_stop

    def require_steps(self, step: Step) -> None:
        """Raises RecipeError where the training has ended before its last step, and nobody asked it to."""
        state = self.trainer.state
        if state.global_step < state.max_steps and not self.was_ended:
            raise RecipeError(f"took {state.global_step} of {state.max_steps} steps: {self._too_few()}", step.path)

    def require_change(self, step: Step, resumed_from: int) -> None:
        """Raises RecipeError, on every rank, where the gradient was always 0 or the weights are as before."""
        flat = self.trainer.why_flat() if hasattr(self.trainer, "why_flat") else None
        if flat:
            raise RecipeError(f"learned nothing: {flat}. A reward must tell a prompt's completions apart", step.path)
        if not self._gradient_was_seen(resumed_from):
            raise RecipeError(f"learned nothing: the gradient was 0 in every step. {self._why_flat()}", step.path)
        if self.start is not None and checksums(self.trainer.model) == self.start:
            raise RecipeError(f"learned nothing: every weight is as before. {self._why_unmoved()}", step.path)

    def _gradient_was_seen(self, resumed_from: int) -> bool:
        """On any rank, here or, as far as was logged, before the checkpoint that this run went on from."""
        before = [row["grad_norm"] for row in self.trainer.state.log_history if "grad_norm" in row]
        seen = self.had_gradient or (resumed_from > 0 and (not before or any(before)))
        accelerator = self.trainer.accelerator
        return bool(accelerator.reduce(torch.tensor(float(seen), device=accelerator.device)).item())

    def _too_few(self) -> str:
        trainer = self.trainer
        rows, args = len(trainer.train_dataset), trainer.args
        if hasattr(args, "generation_batch_size"):
            return too_few_prompts(rows, args.generation_batch_size // args.num_generations)
        return f"{rows} rows make no batch of {args.per_device_train_batch_size} on every rank. Add rows or lower it"

    def _why_flat(self) -> str:
        flat = [row["frac_reward_zero_std"] for row in self.trainer.state.log_history if "frac_reward_zero_std" in row]
        if flat and min(flat) == 1:
            return "All completions of a prompt were given the same reward: let it tell them apart, or sample more"
        return (
            "The loss does not depend on the weights: is a coefficient 0, or everything that was to be learned masked "
            "or beyond max_length?"
        )

    def _why_unmoved(self) -> str:
        rate = self.trainer.args.learning_rate
        if rate == 0:
            return f"train.learning_rate {NO_RATE}"
        steps = self.trainer.state.max_steps
        if steps == 1 and self.trainer.args.get_warmup_steps(steps) > 0:
            return "A warm-up begins at a rate of 0, and there is one step: take more, or set train.warmup_steps to 0"
        dtype = self.trainer.model.dtype
        return (
            f"train.learning_rate ({rate:g}) is lost in the rounding of {dtype}: raise it, or train in float32 "
            "(model.dtype)"
        )


def checksums(model: Any) -> dict[str, int]:
    """The sum of the bits of every trainable weight, by name. Any change changes it, but for a rare coincidence."""
    sums = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            bits = value.detach().contiguous().view(BITS[value.element_size()])
            sums[name] = int(bits.sum(dtype=torch.int64))
    return sums
