"""GRPO on several rewards, whose advantages are mixed anew at every optimizer step.

trl.GRPOTrainer, wrapped: generation, losses, vLLM, logging and evaluation are trl's. Every completion carries one
advantage per reward through trl's buffer of rollouts, and pipelines/algorithms/objectives.py says how they are mixed.

trl calls the methods that are overridden in this file and in constrained_ppo.py in this order:

    1. `_load_optimizer_and_scheduler`, once: a run that resumes finds its multipliers and its KL coefficient again.
    2. `training_step`, for every micro-batch: where an optimizer step begins, the random state is remembered.
    3. `_generate_and_score_completions`, inside of 2 where the buffer is used up (and for every batch of an
       evaluation): begins a `Rollout`. `_sample` is trl's part of it; in PPO it records the critics' values. In it,
       `_tokenize_prompts` asks each prompt with the `tools` and `chat_template_kwargs` of its row.
    4. `_calculate_rewards`, inside of 3: leaves the rewards in the Rollout, and their means to the objective.
    5. `_advantages`, the last part of 3: adds to trl's dictionary what the Rollout says; PPO also measures the KL.
    6. `compute_loss`, inside of 2 after 3: mixes the advantages by the weights of this moment.
    7. `_end_step`, the last part of 2 where an optimizer step ends: logs, and moves multipliers and coefficient.
    8. `_save_checkpoint`, after a step: the state of 1.

Between two of them stand `rollout`, from 3 to the 7 after it, and `step_begins`, from one 2 to the next.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor

from trimtab import rewards
from trimtab.pipelines.algorithms.objectives import Objective
from trimtab.pipelines.algorithms.searching import Searching
from trimtab.pipelines.trainers import flat_rewards
from trimtab.pipelines.trainers.measured_grpo import MeasuredGRPOTrainer
from trimtab.pipelines.trainers.reward_functions import settle_failures
from trimtab.pipelines.trainers.rollouts import Rollout, group_advantages, trimmed
from trimtab.pipelines.trainers.threshold_callback import SearchThresholds
from trimtab.rewards import RewardFailure
from trimtab.rewards._rendering import prompt_ids

STATE = "objective.json"
KL_RATE, KL_CLIP = 0.1, 0.2  # of the adaptive KL coefficient (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593)


class ConstrainedGRPOTrainer(MeasuredGRPOTrainer):
    """`reward_funcs` are RewardFunctions; `objective` says how their advantages are mixed, by their names.

    An advantage is a reward minus its mean over the prompt's completions, divided as `args.scale_rewards` says by the
    standard deviation of that reward (over the prompt's completions, the batch, or not at all: only then is the mix
    the Lagrangian's gradient). A completion that a reward has not scored has its advantage 0. `args.beta` times the
    objective's weight is the KL penalty's; with `target_kl` (nats per token) it adapts to that.

    Logs for each constraint its threshold, violation, multiplier and lambda (the multiplier in units of the task).
    A reward's failure stops all ranks with the completion named, at a checkpoint of the last whole step.
    """

    beta: float
    control: Any

    def __init__(self, *, objective: Objective, target_kl: float | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.reward_objective, self.target_kl = objective, target_kl
        self.rollout = Rollout()
        self.step_begins = True  # whether the next micro-batch is the first of an optimizer step
        self.warnings_given: set[str] = set()
        self.flat_rollouts = flat_rewards.FlatRollouts(self.reward_func_names)
        if isinstance(objective, Searching):
            self.add_callback(SearchThresholds(objective))

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

    def _tokenize_prompts(self, prompts):
        """The prompts' token ids by their rows, and no images; trl's has the run's settings alone."""
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
            means = torch.nanmean(scores.double(), dim=0).tolist()  # per completion, whatever its length
            self.reward_objective.observe(dict(zip(self.reward_func_names, means, strict=True)))
        self.reward_weights = self._weights()[1].cpu()  # of trl's metric `reward`
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

    def _advantages(self, output: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
        """What the rollout carries of its rewards: `advantages_by_reward` (N, K) of this rank's completions."""
        size = len(output["completion_mask"])
        start = self.accelerator.process_index * size
        advantages = group_advantages(rollout.rewards, self._group_size(), self.scale_rewards)
        return {"advantages_by_reward": advantages[start : start + size]}

    def _mixed(self, inputs: Mapping[str, Any]) -> tuple[Tensor, float]:
        """The advantages that are learned from now, and the coefficient of the KL in the loss."""
        task, weights = self._weights()
        return inputs["advantages_by_reward"] @ weights, self.beta * task

    def _policy_learns(self) -> bool:
        return True

    def _measured_kl(self) -> float | None:
        """Nats per token, None in steps that do not measure it."""
        logged = self._metrics["train"]["kl"]
        return logged[-1] if logged else None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        advantages, in_loss = self._mixed(inputs)
        coefficient, self.beta = self.beta, in_loss
        try:
            batch = trimmed({**inputs, "advantages": advantages})
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)
        finally:
            self.beta = coefficient

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
        """Logs the numbers by which this step was taken, then moves the multipliers and the KL's coefficient."""
        self.end_step()
        self._report()
        measured = self._measured_kl()
        if not self._policy_learns():
            return
        self.reward_objective.step()
        if self.target_kl is not None and measured is not None:
            excess = (measured - self.target_kl) / self.target_kl
            self.beta *= 1 + KL_RATE * max(-KL_CLIP, min(KL_CLIP, excess))

    def _weights(self) -> tuple[float, Tensor]:
        """The objective's weights: of the task, and (K,) of the rewards in their order."""
        task, weights = self.reward_objective.weights()
        in_order = torch.tensor([weights.get(name, 0.0) for name in self.reward_func_names])
        return task, in_order.to(self.accelerator.device)

    def _report(self) -> None:
        logged = self._metrics["train"]
        logged["kl_coefficient"].append(self.beta * self._weights()[0])
        for name, value in self.reward_objective.report().items():
            logged[name].append(value)
        for trouble, words in self.reward_objective.warnings().items():
            if trouble not in self.warnings_given and self.accelerator.is_main_process:
                print(f"    warning: step {self.state.global_step}: {words}", flush=True)
            self.warnings_given.add(trouble)

    def _save_as_it_was(self, random_state: tuple) -> None:
        """A checkpoint of the last whole step: the one at hand has computed nothing yet but a rollout."""
        _set_random_state(random_state)
        if not (self._objective_file().parent / "complete.json").exists():
            self._save_checkpoint(self.model, trial=None)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _objective_file(self) -> Path:
        return Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}" / STATE

    def _save_checkpoint(self, model, trial):
        super()._save_checkpoint(model, trial)
        state = {"objective": self.reward_objective.state_dict(), "beta": self.beta}
        if any(other != state for other in gather_object([state])):
            raise RuntimeError("the processes have come to different multipliers: a checkpoint would hide it")
        if self.args.should_save:
            self._objective_file().write_text(json.dumps(state, indent=1))

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        path = Path(checkpoint) / STATE
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: without its multipliers this checkpoint is another run's")
        saved = json.loads(path.read_text())
        self.reward_objective.load_state_dict(saved["objective"])
        self.beta = saved["beta"]


def _random_state() -> tuple:
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None  # of this rank's device alone
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), device


def _set_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state(state[3])
