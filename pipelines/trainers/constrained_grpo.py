"""GRPO on several rewards, whose advantages are mixed anew at every optimizer step.

trl.GRPOTrainer, wrapped: generation, losses, vLLM, logging and evaluation are trl's. Every completion carries one
advantage per reward through trl's buffer of rollouts, and pipelines/algorithms/objectives.py says how they are mixed.

trl calls the methods that this file, rewarded_rollouts.py and constrained_ppo.py override in this order:

    1. `_load_optimizer_and_scheduler`, once: a run that resumes finds its multipliers and its KL coefficient again.
    2. `training_step`, for every micro-batch: where an optimizer step begins, the random state is remembered.
    3. `_generate_and_score_completions`, inside of 2 where the buffer is used up (and for every batch of an
       evaluation): begins a `Rollout`. `_sample` is trl's part of it; in PPO it records the critics' values. In it,
       `_tokenize_prompts` asks each prompt with the `tools` and `chat_template_kwargs` of its row.
    4. `_calculate_rewards`, inside of 3: leaves the rewards in the Rollout, and their means to the objective.
    5. `_advantages`, the last part of 3: adds to trl's dictionary what the Rollout says, the KL's part included.
    6. `compute_loss`, inside of 2 after 3: mixes the advantages by the weights of this moment.
    7. `_end_step`, the last part of 2 where an optimizer step ends: logs, and moves multipliers and coefficient.
    8. `_save_checkpoint`, after a step: the state of 1.

Between two of them stand `rollout`, from 3 to the 7 after it, and `step_begins`, from one 2 to the next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from torch import Tensor

from trimtab.pipelines.algorithms.advantages import still_to_come
from trimtab.pipelines.algorithms.objectives import Objective
from trimtab.pipelines.algorithms.searching import Searching
from trimtab.pipelines.trainers.proximal_steps import ProximalSteps
from trimtab.pipelines.trainers.rewarded_rollouts import RewardedRollouts
from trimtab.pipelines.trainers.rollouts import Rollout, group_advantages
from trimtab.pipelines.trainers.threshold_callback import SearchThresholds

STATE = "objective.json"
KL_RATE, KL_CLIP = 0.1, 0.2  # of the adaptive KL coefficient (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593)


class ConstrainedGRPOTrainer(RewardedRollouts, ProximalSteps, trl.GRPOTrainer):
    """`reward_funcs` are RewardFunctions; `objective` says how their advantages are mixed, by their names.

    An advantage is a reward minus its mean over the prompt's completions, divided as `args.scale_rewards` says by the
    standard deviation of that reward (over the prompt's completions, the batch, or not at all: only then is the mix
    the Lagrangian's gradient). A completion that a reward has not scored has its advantage 0. `args.beta` times the
    objective's weight is the KL penalty's; with `target_kl` (nats per token) it adapts to that. With `sequence_kl` the
    KL is a reward of every token, minus the mean over the prompt's completions as the others are, and no term of the
    loss: its gradient is that of the KL of whole answers.

    Logs for each constraint its threshold, violation, multiplier and lambda (the multiplier in units of the task).
    """

    beta: float

    def __init__(
        self, *, objective: Objective, target_kl: float | None = None, sequence_kl: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.reward_objective, self.target_kl, self.sequence_kl = objective, target_kl, sequence_kl
        self.warnings_given: set[str] = set()
        if isinstance(objective, Searching):
            self.add_callback(SearchThresholds(objective))

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        scores = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        if self.model.training:
            means = torch.nanmean(scores.double(), dim=0).tolist()  # per completion, whatever its length
            self.reward_objective.observe(dict(zip(self.reward_func_names, means, strict=True)))
        self.reward_weights = self._weights()[1].cpu()  # of trl's metric `reward`
        return scores

    def _advantages(self, output: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
        """What completions of this rank carry: `advantages_by_reward` (N, K), and `kl_advantages` (N, T)."""
        size = len(output["completion_mask"])
        start = self.accelerator.process_index * size
        advantages = group_advantages(rollout.rewards, self._group_size(), self.scale_rewards)
        carried = {"advantages_by_reward": advantages[start : start + size]}
        if self.sequence_kl and self.beta:
            drift = self._drift(output, self._old_logprobs(output), rollout)
            to_come = self.accelerator.gather(self.accelerator.pad_across_processes(still_to_come(drift), dim=1))
            centred = group_advantages(to_come, self._group_size(), "none")[start : start + size, : drift.shape[1]]
            carried["kl_advantages"] = centred * output["completion_mask"]
        return carried

    def _old_logprobs(self, output: Mapping[str, Any]) -> Tensor:
        """Log-probabilities of the completions by the policy that sampled them, (N, T)."""
        if "old_per_token_logps" in output:
            return output["old_per_token_logps"].detach()
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        size = self.args.per_device_train_batch_size
        with torch.no_grad():
            logprobs, *_ = self._get_per_token_logps_and_entropies(
                self.model, ids, mask, output["completion_ids"].shape[1], batch_size=size
            )
        return logprobs

    def _drift(self, output: Mapping[str, Any], old: Tensor, rollout: Rollout) -> Tensor:
        """log pi - log pi_0 of every sampled token (N, T), 0 behind the end; the mean over tokens is logged."""
        mask = output["completion_mask"]
        drift = (old - output["ref_per_token_logps"]) * mask
        sums = self.accelerator.reduce(torch.stack([drift.double().sum(), mask.double().sum()]), reduction="sum")
        kl = float(sums[0] / sums[1].clamp(min=1))
        self._metrics[self.mode()]["kl"].append(kl)
        if self.model.training:
            rollout.kl = kl
        return drift

    def _mixed(self, inputs: Mapping[str, Any]) -> tuple[Tensor, float]:
        """The advantages that are learned from now, and the coefficient of the KL in the loss."""
        task, weights = self._weights()
        mixed = inputs["advantages_by_reward"] @ weights
        if "kl_advantages" not in inputs:
            return mixed, self.beta * task
        return mixed.unsqueeze(1) + self.beta * task * inputs["kl_advantages"], 0.0

    def _policy_learns(self) -> bool:
        return True

    def _measured_kl(self) -> float | None:
        """Nats per token, None in steps that do not measure it."""
        if self.sequence_kl:
            return self.rollout.take_kl()  # once for a rollout
        logged = self._metrics["train"]["kl"]
        return logged[-1] if logged else None

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        advantages, in_loss = self._mixed(inputs)
        coefficient, self.beta = self.beta, in_loss
        try:
            batch = {**inputs, "advantages": advantages}
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)
        finally:
            self.beta = coefficient

    def _end_step(self) -> None:
        """Logs the numbers by which this step was taken, then moves the multipliers and the KL's coefficient."""
        super()._end_step()
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

    def _objective_file(self) -> Path:
        return self._newest_checkpoint() / STATE

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
