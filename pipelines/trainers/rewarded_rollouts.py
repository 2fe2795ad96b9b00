"""Rollouts whose completions are scored by the rewards of a recipe, with what those say of failures."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab import rewards
from trimtab.pipelines.trainers import flat_rewards
from trimtab.pipelines.trainers.measured_rollouts import MeasuredRollouts
from trimtab.pipelines.trainers.reward_functions import settle_failures
from trimtab.pipelines.trainers.rollouts import Rollout, trimmed
from trimtab.rewards import RewardFailure
from trimtab.rewards._rendering import prompt_ids


class RewardedRollouts(MeasuredRollouts):
    """A mixin for trl's GRPOTrainer and RLOOTrainer: `reward_funcs` are RewardFunctions.

    A prompt is asked with the `tools` and `chat_template_kwargs` of its row. A reward's failure stops all ranks with
    the completion named, at a checkpoint of the last whole step. How far rewards tell completions apart is logged.
    """

    control: Any

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.rollout = Rollout()
        self.step_begins = True  # whether the next micro-batch is the first of an optimizer step
        self.flat_rollouts = flat_rewards.FlatRollouts(self.reward_func_names)

    def samples(self, count: int = 20) -> list[dict[str, Any]]:
        """The last completions that were trained on, with what each reward has said of them."""
        logs = self._logs
        columns = {"prompt": logs["prompt"], "completion": logs["completion"], **logs["rewards"]}
        last = {name: list(values)[-count:] for name, values in columns.items()}
        for name in ("prompt", "completion"):
            last[name] = [rewards.text(value) for value in last[name]]
        return [dict(zip(last, row, strict=True)) for row in zip(*last.values(), strict=True)]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self.rollout = Rollout(rows=inputs)
        output = self._sample(inputs)
        if self.model.training:
            return output | self._advantages(output, self.rollout)
        output = self.without_repeats(output, self.rollout.rewards)
        with self.merging(float(output["num_items_in_batch"])):
            return output | self._advantages(output, self.rollout)

    def _sample(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """The rollout as trl makes it; the rewards, which it does not hold, are left in `rollout`."""
        return super()._generate_and_score_completions(inputs)

    def _advantages(self, output: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
        """What is added to trl's dictionary of a rollout, or put in the place of what it holds."""
        return {}

    def _tokenize_prompts(self, prompts):
        """The prompts' token ids by their rows, and no images; trl's has the run's settings alone."""
        if getattr(self, "tools", None):  # of the run, whose environments may add some for each row
            return super()._tokenize_prompts(prompts)
        ids = []
        for prompt, row in zip(prompts, self.rollout.rows, strict=True):
            settings = {**self.chat_template_kwargs, **(row.get("chat_template_kwargs") or {})}
            ids.append(prompt_ids(self.processing_class, prompt, {**row, "chat_template_kwargs": settings}))
        return ids, None, {}

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # (all ranks' N, K)
        settle_failures(self.reward_funcs, scores, len(prompts), self._group_size(), self.state.global_step)
        self.rollout.rewards = scores
        if self.model.training:
            self._log_flat(scores)
        return scores

    def _log_flat(self, scores: Tensor) -> None:
        """Logs how far the rewards tell completions apart, and warns where none does."""
        shares = flat_rewards.shares(scores, self.reward_func_names, self._group_size())
        for name, share in shares.items():
            self._metrics["train"][name].append(share)
        warning = self.flat_rollouts.warning(shares)
        if warning and self.accelerator.is_main_process:
            print(f"    warning: step {self.state.global_step}: {warning}", flush=True)

    def why_flat(self) -> str | None:
        """What was wrong with every reward in the whole training; None where something could be learned."""
        return flat_rewards.why(self._all_logged(), self.reward_func_names, across_prompts=False)

    def _all_logged(self) -> list[dict[str, float]]:
        """The metrics of all steps, also of the last ones, which no log has held yet."""
        left = {name: sum(values) / len(values) for name, values in self._metrics["train"].items() if values}
        return [*self.state.log_history, left]

    def _group_size(self) -> int:
        """How many completions of a prompt a rollout has."""
        return self.num_generations if self.model.training else self.num_generations_eval

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, trimmed(inputs), return_outputs, num_items_in_batch)

    def training_step(self, model, inputs, num_items_in_batch=None):
        random_state = _random_state() if self.step_begins else None
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except RewardFailure:
            if random_state is not None and self.state.global_step:
                self._save_as_it_was(random_state)
            raise
        self.step_begins = self.accelerator.sync_gradients
        if self.step_begins:
            self._end_step()
        return loss

    def _end_step(self) -> None:
        """Called where an optimizer step ends."""
        self.end_step()

    def _save_as_it_was(self, random_state: tuple) -> None:
        """A checkpoint of the last whole step: the one at hand has computed nothing yet but a rollout."""
        _set_random_state(random_state)
        if not (self._newest_checkpoint() / "complete.json").exists():
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _newest_checkpoint(self) -> Path:
        return Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}"


def _random_state() -> tuple:
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None  # of this rank's device alone
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), device


def _set_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state(state[3])
