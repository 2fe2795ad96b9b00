"""GRPO on several rewards, whose advantages are mixed anew at every optimizer step
(pipelines/algorithms/objectives.py).

trl.GRPOTrainer, wrapped: generation, losses, vLLM, logging and evaluation are trl's. Every completion carries one
advantage per reward through trl's buffer of rollouts.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor
from transformers import TrainerCallback
from trimtab import rewards
from trimtab.pipelines.algorithms.objectives import Objective
from trimtab.pipelines.algorithms.searching import Searching
from trimtab.pipelines.trainers.seams.engines import whole_models
from trimtab.pipelines.trainers.seams.trl import ExactRollouts
from trimtab.rewards import RewardFailure
from trl import GRPOTrainer

STATE = "objective.json"
KL_RATE, KL_CLIP = 0.1, 0.2  # of the adaptive KL coefficient (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593)


class RewardFunction:
    """A reward as trl calls it, under its name in the recipe. What has failed is None, and kept in `failures`."""

    def __init__(self, name: str, reward: Callable[..., Any], *, on_failure: str = "stop", max_failures: float = 0.05):
        self.__name__, self.reward, self.on_failure, self.max_failures = name, reward, on_failure, max_failures
        self.failures: dict[int, RewardFailure] = {}

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        with whole_models():  # a reward model is loaded by its first call
            found = rewards.outcomes(self.reward, prompts, completions, name=self.__name__, **columns)
        self.failures = {at: each for at, each in enumerate(found) if isinstance(each, RewardFailure)}
        return [None if at in self.failures else outcome for at, outcome in enumerate(found)]


class ConstrainedGRPOTrainer(ExactRollouts, GRPOTrainer):
    """`reward_funcs` are RewardFunctions; `objective` says how their advantages are mixed, by their names.

    An advantage is a reward minus its mean over the prompt's completions, divided as `args.scale_rewards` says by the
    standard deviation of that reward (over the prompt's completions, the batch, or not at all: only then is the mix
    the Lagrangian's gradient). A completion that a reward has not scored has its advantage 0. `args.beta` times the
    objective's weight is the KL penalty's; with `target_kl` (nats per token) it adapts to that.

    Logs for each constraint its threshold, violation, multiplier and lambda (the multiplier in units of the task).
    A reward's failure stops all ranks with the completion named, at a checkpoint of the last whole step.
    """

    def __init__(self, *, objective: Objective, target_kl: float | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.objective, self.target_kl = objective, target_kl
        self.warned: set[str] = set()
        self._begins = True
        if isinstance(objective, Searching):
            self.add_callback(_Search(objective))

    def samples(self, count: int = 20) -> list[dict[str, Any]]:
        """The last completions that were trained on, with what each reward has said of them."""
        logs = self._logs
        columns = {"prompt": logs["prompt"], "completion": logs["completion"], **logs["rewards"]}
        rows = zip(*(list(values)[-count:] for values in columns.values()), strict=True)
        return [{key: rewards.text(value) if key in ("prompt", "completion") else value
                 for key, value in zip(columns, row, strict=True)} for row in rows]  # fmt: skip

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        found = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # (all ranks' N, K)
        self._settle_failures(found, len(prompts))
        self._rewards = found
        if self.model.training:
            means = torch.nanmean(found.double(), dim=0).tolist()  # per completion, whatever its length
            self.objective.observe(dict(zip(self.reward_func_names, means, strict=True)))
        self.reward_weights = self._weights()[1].cpu()  # of trl's metric `reward`
        return found

    def _settle_failures(self, found: Tensor, count: int) -> None:
        """What each reward's `on_failure` says, on all ranks alike. Raises RewardFailure where that is to stop."""
        group = self.num_generations if self.model.training else self.num_generations_eval
        ours = [
            [(at, each.reason, each.sample) for at, each in reward.failures.items()] for reward in self.reward_funcs
        ]
        every = gather_object([ours])
        for column, reward in enumerate(self.reward_funcs):
            failed = [(rank * count + at, *rest) for rank, part in enumerate(every) for at, *rest in part[column]]
            allowed = 0 if reward.on_failure == "stop" else reward.max_failures * len(found)
            if len(failed) > allowed:
                index, reason, sample = failed[0]
                raise RewardFailure(
                    f"{reason} ({len(failed)} of {len(found)} completions of the rollout after step "
                    f"{self.state.global_step} failed)",
                    reward=reward.__name__, index=index, sample=sample,
                )  # fmt: skip
            if reward.on_failure == "skip_group":
                for index, *_ in failed:
                    start = index - index % group
                    found[start : start + group, column] = math.nan

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        return output | self._advantages(output)

    def _advantages(self, output: Mapping[str, Any]) -> dict[str, Any]:
        """What the rollout carries of its rewards: `advantages_by_reward` (N, K) of this rank's completions."""
        size = len(output["completion_mask"])
        group = self.num_generations if self.model.training else self.num_generations_eval
        grouped = self._rewards.view(-1, group, self._rewards.shape[-1])
        advantages = grouped - grouped.nanmean(dim=1, keepdim=True)
        if self.scale_rewards == "group":
            advantages = advantages / (_nanstd(grouped, 1) + 1e-4)
        elif self.scale_rewards == "batch":
            advantages = advantages / (_nanstd(self._rewards, 0) + 1e-4)
        start = self.accelerator.process_index * size
        return {"advantages_by_reward": advantages.nan_to_num(0.0).flatten(0, 1)[start : start + size]}

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
        mixed, now = self._mixed(inputs)
        coefficient, self.beta = self.beta, now
        try:
            batch = _trimmed({**inputs, "advantages": mixed})
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)
        finally:
            self.beta = coefficient

    def training_step(self, model, inputs, num_items_in_batch=None):
        before = _random_state() if self._begins else None  # a step of the optimizer begins
        try:
            loss = super().training_step(model, inputs, num_items_in_batch)
        except RewardFailure:
            if self._begins and self.state.global_step:
                self._save_as_it_was(before)
            raise
        self._begins = self.accelerator.sync_gradients
        if self._begins:
            self._report()
            if self._policy_learns():
                self.objective.step()
            measured = self._measured_kl()
            if self._policy_learns() and self.target_kl is not None and measured is not None:
                excess = (measured - self.target_kl) / self.target_kl
                self.beta *= 1 + KL_RATE * max(-KL_CLIP, min(KL_CLIP, excess))
        return loss

    def _weights(self) -> tuple[float, Tensor]:
        task, weights = self.objective.weights()
        found = torch.tensor([weights.get(name, 0.0) for name in self.reward_func_names])
        return task, found.to(self.accelerator.device)

    def _report(self) -> None:
        """The numbers by which this step was taken."""
        logged = self._metrics["train"]
        for name, value in {"kl_coefficient": self.beta * self._weights()[0], **self.objective.report()}.items():
            logged[name].append(value)
        for kind, words in self.objective.warnings().items():
            if kind not in self.warned and self.accelerator.is_main_process:
                print(f"    warning: step {self.state.global_step}: {words}", flush=True)
            self.warned.add(kind)

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
        state = {"objective": self.objective.state_dict(), "beta": self.beta}
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
        self.objective.load_state_dict(saved["objective"])
        self.beta = saved["beta"]


class _Search(TrainerCallback):
    """Evaluates when the policy has come to the thresholds that are tried, and says what was found and decided."""

    def __init__(self, objective: Searching):
        self.objective = objective

    def on_train_begin(self, args, state, control, **kwargs):
        self.objective.begin(state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate = control.should_evaluate or self.objective.asks
        self._say(state)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if self.objective.asks and state.global_step:
            self.objective.tell(metrics[f"eval_rewards/{self.objective.settings.metric}/mean"])
        self._say(state)

    def _say(self, state: Any) -> None:
        for words in self.objective.decisions:
            if state.is_world_process_zero:
                print(f"    thresholds, step {state.global_step}: {words}", flush=True)
        self.objective.decisions.clear()


def _nanstd(values: Tensor, dim: int) -> Tensor:
    """Standard deviation without bias over what is not NaN, 0 for fewer than two numbers; `dim` stays."""
    count = (~values.isnan()).sum(dim, keepdim=True)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _trimmed(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The batch without the columns on the right that are padding in all of its completions."""
    mask = batch["completion_mask"]
    width, used = mask.shape[1], max(1, int(mask.any(0).sum()))
    whole = {"advantages_by_reward"} if batch["advantages_by_reward"].dim() == 2 else set()  # one for a completion
    other = {"prompt_ids", "prompt_mask"} | whole
    return {key: value[:, :used] if isinstance(value, Tensor) and value.dim() >= 2 and value.shape[1] == width
            and key not in other else value for key, value in batch.items()}  # fmt: skip


def _random_state() -> tuple:
    device = torch.cuda.get_rng_state() if torch.cuda.is_available() else None  # of this rank's device alone
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), device


def _set_random_state(state: tuple) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state(state[3])
