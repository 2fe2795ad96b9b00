"""PPO on several rewards, each with its own critic, whose advantages are mixed anew at every optimizer step.

ConstrainedGRPOTrainer, with a baseline for every token in the place of the mean of a prompt's completions: sampling,
the clipped loss, multipliers, failures of rewards and exact resumption are those of that trainer, and so is the order
in which trl calls the methods (constrained_grpo.py). With one reward and no constraint it is PPO (Schulman et al.
2017, https://arxiv.org/abs/1707.06347).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from trimtab.pipelines.algorithms.advantages import CriticSettings, gae, value_errors
from trimtab.pipelines.trainers import critic, flat_rewards
from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer
from trimtab.pipelines.trainers.rollouts import Rollout, trimmed
from trimtab.pipelines.trainers.seams.trl import attach_critic, disable_dropout_in_model


class ConstrainedPPOTrainer(ConstrainedGRPOTrainer):
    """As ConstrainedGRPOTrainer, with critics that are part of the model while it is trained.

    So DDP, FSDP and ZeRO treat both alike. The critics lie beside the policy's weights when it is saved, in `critic/`.

    A reward counts at a completion's last token; minus the KL to the start, `args.beta` (log pi_0 - log pi), counts
    at every token and has a critic of its own. `args.scale_rewards` other than `none` makes each reward's advantages
    have mean 0 and standard deviation 1 over the tokens of the batch before they are mixed.
    """

    def __init__(self, *, critics: CriticSettings, **kwargs: Any):
        super().__init__(sequence_kl=True, **kwargs)
        self.critics = critics
        model = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        trunk = None
        if critics.trunk == "separate":
            options = {"dtype": model.dtype, **(self.args.model_init_kwargs or {})}
            trunk = AutoModelForCausalLM.from_pretrained(model.config._name_or_path, **options).base_model
            if self.args.disable_dropout:
                disable_dropout_in_model(trunk)
        width = model.config.get_text_config().hidden_size
        self.critic = critic.Critic(width, len(self.reward_funcs) + 1, trunk).to(model.device)
        self.critic_values = attach_critic(model, self.critic)

    def why_flat(self) -> str | None:
        return flat_rewards.why(self._all_logged(), self.reward_func_names, across_prompts=True)

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args)
        if self.critics.learning_rate is not None:
            of_critic = {id(p) for name, p in self.model.named_parameters() if critic.is_critic(name)}
            groups = optimizer.param_groups
            for group in list(groups):
                moved = [p for p in group["params"] if id(p) in of_critic]
                if moved:
                    group["params"] = [p for p in group["params"] if id(p) not in of_critic]
                    groups.append({**group, "params": moved, "lr": self.critics.learning_rate})
        return optimizer

    def _sample(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with self.critic_values.recording() as self.rollout.values:
            return super()._sample(inputs)

    def _advantages(self, output: Mapping[str, Any], rollout: Rollout) -> dict[str, Any]:
        mask, size = output["completion_mask"], len(output["completion_mask"])
        with self.critic_values.recording() as recorded:
            old = self._old_logprobs(output)
        values = torch.cat(recorded or rollout.values)[:size, -mask.shape[1] - 1 : -1]
        start = self.accelerator.process_index * size
        ends = nn.functional.one_hot(mask.sum(1).clamp(min=1) - 1, mask.shape[1])  # (N, T)
        scores = rollout.rewards[start : start + size].to(values)  # (N, K), NaN where a reward has abstained
        has_reference = output.get("ref_per_token_logps") is not None
        drift = self._drift(output, old, rollout) if has_reference else torch.zeros_like(old)
        rewards = torch.cat([ends.unsqueeze(-1) * scores.nan_to_num(0.0).unsqueeze(1), -drift.unsqueeze(-1)], dim=-1)
        advantages = gae(rewards, values, mask, gamma=self.critics.gamma, lam=self.critics.lam)
        scored = torch.cat([~scores.isnan(), scores.new_ones(size, 1).bool()], dim=-1).unsqueeze(1)
        advantages = advantages * scored
        returns = advantages + values
        scale = self._moments(advantages, mask.unsqueeze(-1) * scored) if self.scale_rewards != "none" else None
        self._log_explained(values, returns, mask)
        if scale is not None:
            mean, deviation = scale
            if not self.critics.scale_kl:
                mean[-1], deviation[-1] = 0.0, 1.0
            advantages = (advantages - mean) / (deviation + 1e-8) * mask.unsqueeze(-1) * scored
        return {
            "advantages_by_reward": advantages[..., :-1].contiguous(),
            "kl_advantages": advantages[..., -1].contiguous(),
            "old_per_token_logps": old,
            "old_values": values,
            "returns": returns,
        }

    def _moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each reward's advantages (K,) over the tokens of all ranks."""
        values, mask = values.double(), mask.double()
        count = self.accelerator.reduce(mask.sum((0, 1)), reduction="sum").clamp(min=1)
        mean = self.accelerator.reduce((values * mask).sum((0, 1)), reduction="sum") / count
        squares = self.accelerator.reduce(((values - mean).square() * mask).sum((0, 1)), reduction="sum")
        return mean.float(), (squares / count).sqrt().float()

    def _log_explained(self, values: Tensor, returns: Tensor, mask: Tensor) -> None:
        """How much of the returns' variance each critic explains (1 is all of it)."""
        logged = self._metrics[self.mode()]
        every = mask.unsqueeze(-1).expand_as(returns)
        _, spread = self._moments(returns, every)
        _, left = self._moments(returns - values, every)
        for head, name in enumerate([*self.reward_func_names, "kl"]):
            if spread[head] > 0:
                logged[f"critics/{name}/explained"].append((1 - (left[head] / spread[head]) ** 2).item())

    def _mixed(self, inputs: Mapping[str, Any]) -> tuple[Tensor, float]:
        task, weights = self._weights()
        scaled = self.critics.scale_kl and self.scale_rewards != "none"
        coefficient = float(self.beta > 0) if scaled else self.beta
        return inputs["advantages_by_reward"] @ weights + coefficient * task * inputs["kl_advantages"], 0.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = trimmed(inputs)
        self.critic.alone = not self._policy_learns()
        with self.critic_values.recording() as recorded:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mask = inputs["completion_mask"].unsqueeze(-1)
        values = recorded[-1][:, -mask.shape[1] - 1 : -1]
        errors = value_errors(values, inputs["old_values"], inputs["returns"], self.critics.clip)
        critics = self.critics
        weights = errors.new_tensor([critics.coefficient] * len(self.reward_funcs) + [critics.kl_coefficient])
        critic_loss = (errors * weights * mask).sum()
        tokens = float(self.accelerator.reduce(mask.sum()))
        mean = float(self.accelerator.reduce(critic_loss.detach())) / max(tokens, 1.0)
        self.merged[self.mode()].add("critics/loss", mean, tokens)
        if self.critic.alone:
            loss = loss * 0.0
        # over the tokens of an optimizer step on all ranks, as trl counts them for the policy's loss
        counted = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
        if self.model.training:
            counted = counted * self.current_gradient_accumulation_steps / self.args.steps_per_generation
        return loss + critic_loss / counted

    def _policy_learns(self) -> bool:
        return self.state.global_step >= self.critics.warmup_steps

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """In a checkpoint of a whole model the critics stay among its weights, to be found again with them."""
        folder = Path(output_dir or self.args.output_dir)
        if hasattr(self.model, "peft_config") or not folder.name.startswith("checkpoint-"):
            weights = self.model.state_dict() if state_dict is None else state_dict
            state_dict = critic.without_critic(weights)
            if self.args.should_save:
                critic.save(weights, folder)
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if hasattr(self.model, "peft_config"):
            critic.load(self.model.get_base_model().critic, Path(resume_from_checkpoint))
