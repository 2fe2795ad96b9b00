"""PPO on several rewards, each with its own critic, whose advantages are mixed anew at every optimizer step.

ConstrainedGRPOTrainer, with a baseline for every token in the place of the mean of a prompt's completions: sampling,
the clipped loss, multipliers, failures of rewards and exact resumption are those of that trainer. With one reward and
no constraint it is PPO (Schulman et al. 2017, https://arxiv.org/abs/1707.06347).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from trimtab.pipelines.algorithms.advantages import CriticSettings, gae, value_errors
from trimtab.pipelines.trainers.constrained_grpo import ConstrainedGRPOTrainer, _trimmed
from trimtab.pipelines.trainers.seams.trl import attach_critic, disable_dropout_in_model

CRITIC = Path("critic", "model.safetensors")  # beside a policy's weights, which stay those of a plain model


class Critic(nn.Module):
    """Values (N, L, heads) of every place in the text, by a linear layer on its own trunk or on the policy's.

    The layer begins at 0: before anything is learned, every value is.
    """

    def __init__(self, width: int, heads: int, trunk: nn.Module | None = None):
        super().__init__()
        self.trunk, self.alone = trunk, False  # alone: nothing but the critics is to learn
        self.heads = nn.Linear(width, heads)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)

    def forward(self, hidden: Tensor, inputs: dict[str, Any]) -> Tensor:
        if self.trunk is not None:
            hidden = self.trunk(**inputs, use_cache=False).last_hidden_state
        elif self.alone:
            hidden = hidden.detach()
        return self.heads(hidden.to(self.heads.weight.dtype)).float()


class ConstrainedPPOTrainer(ConstrainedGRPOTrainer):
    """As ConstrainedGRPOTrainer. The critics are part of the model while it is trained, so that DDP, FSDP and ZeRO

    treat both alike, and lie beside the policy's weights when it is saved, in `critic/`.

    A reward counts at a completion's last token; minus the KL to the start, `args.beta` (log pi_0 - log pi), counts
    at every token and has a critic of its own. `args.scale_rewards` other than `none` makes each reward's advantages
    have mean 0 and standard deviation 1 over the tokens of the batch before they are mixed.
    """

    def __init__(self, *, critics: CriticSettings, **kwargs: Any):
        super().__init__(**kwargs)
        self.critics = critics
        self._kl: float | None = None  # of the rollout at hand, until it is used
        model = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        trunk = None
        if critics.trunk == "separate":
            options = {"dtype": model.dtype, **(self.args.model_init_kwargs or {})}
            trunk = AutoModelForCausalLM.from_pretrained(model.config._name_or_path, **options).base_model
            if self.args.disable_dropout:
                disable_dropout_in_model(trunk)
        critic = Critic(model.config.get_text_config().hidden_size, len(self.reward_funcs) + 1, trunk)
        self.critic = critic.to(model.device)
        self._values = attach_critic(model, self.critic)

    def create_optimizer(self, *args: Any) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(*args)
        if self.critics.learning_rate is not None:
            critic = {id(p) for name, p in self.model.named_parameters() if _is_critic(name)}
            groups = optimizer.param_groups
            for group in list(groups):
                own = [p for p in group["params"] if id(p) in critic]
                if own:
                    group["params"] = [p for p in group["params"] if id(p) not in critic]
                    groups.append({**group, "params": own, "lr": self.critics.learning_rate})
        return optimizer

    def _advantages(self, output: dict[str, Any]) -> dict[str, Any]:
        mask, size = output["completion_mask"], len(output["completion_mask"])
        old = output.get("old_per_token_logps")
        old = self._old_logprobs(output) if old is None else old.detach()  # either has left the critics' values
        values = torch.cat(self._values)[:size, -mask.shape[1] - 1 : -1]
        self._values.clear()
        start = self.accelerator.process_index * size
        ends = nn.functional.one_hot(mask.sum(1).clamp(min=1) - 1, mask.shape[1])  # (N, T)
        scores = self._rewards[start : start + size].to(values)  # (N, K), NaN where a reward has abstained
        reference = output.get("ref_per_token_logps")
        drift = torch.zeros_like(old) if reference is None else (old - reference) * mask
        rewards = torch.cat([ends.unsqueeze(-1) * scores.nan_to_num(0.0).unsqueeze(1), -drift.unsqueeze(-1)], dim=-1)
        advantages = gae(rewards, values, mask, gamma=self.critics.gamma, lam=self.critics.lam)
        known = torch.cat([~scores.isnan(), scores.new_ones(size, 1).bool()], dim=-1).unsqueeze(1)
        advantages = advantages * known
        returns = advantages + values
        scale = self._moments(advantages, mask.unsqueeze(-1) * known) if self.scale_rewards != "none" else None
        self._log_rollout(None if reference is None else drift, values, returns, mask)
        if scale is not None:
            mean, deviation = scale
            if not self.critics.scale_kl:
                mean[-1], deviation[-1] = 0.0, 1.0
            advantages = (advantages - mean) / (deviation + 1e-8) * mask.unsqueeze(-1) * known
        return {
            "advantages_by_reward": advantages[..., :-1].contiguous(),
            "kl_advantages": advantages[..., -1].contiguous(),
            "old_per_token_logps": old,
            "old_values": values,
            "returns": returns,
        }

    def _old_logprobs(self, output: dict[str, Any]) -> Tensor:
        ids, mask = (torch.cat([output[f"prompt_{key}"], output[f"completion_{key}"]], dim=1)
                     for key in ("ids", "mask"))  # fmt: skip
        self._values.clear()
        with torch.no_grad():
            size = self.args.per_device_train_batch_size
            return self._get_per_token_logps_and_entropies(
                self.model, ids, mask, output["completion_ids"].shape[1], batch_size=size
            )[0]

    def _generate_and_score_completions(self, inputs):
        self._values.clear()
        return super()._generate_and_score_completions(inputs)

    def _moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each reward's advantages (K,) over the tokens of all ranks."""
        values, mask = values.double(), mask.double()
        count = self.accelerator.reduce(mask.sum((0, 1)), reduction="sum").clamp(min=1)
        mean = self.accelerator.reduce((values * mask).sum((0, 1)), reduction="sum") / count
        squares = self.accelerator.reduce(((values - mean).square() * mask).sum((0, 1)), reduction="sum")
        return mean.float(), (squares / count).sqrt().float()

    def _log_rollout(self, drift: Tensor | None, values: Tensor, returns: Tensor, mask: Tensor) -> None:
        """The KL per token, and how much of the returns' variance each critic explains (1 is all of it)."""
        logged = self._metrics["train" if self.model.training else "eval"]
        every = mask.unsqueeze(-1).expand_as(returns)
        if drift is not None:
            logged["kl"].append(self._moments(drift.unsqueeze(-1), mask.unsqueeze(-1))[0].item())
            if self.model.training:
                self._kl = logged["kl"][-1]
        _, spread = self._moments(returns, every)
        _, left = self._moments(returns - values, every)
        for at, name in enumerate([*self.reward_func_names, "kl"]):
            if spread[at] > 0:
                logged[f"critics/{name}/explained"].append((1 - (left[at] / spread[at]) ** 2).item())

    def _mixed(self, inputs: dict[str, Any]) -> tuple[Tensor, float]:
        task, weights = self._weights()
        scaled = self.critics.scale_kl and self.scale_rewards != "none"
        coefficient = float(self.beta > 0) if scaled else self.beta
        return inputs["advantages_by_reward"] @ weights + coefficient * task * inputs["kl_advantages"], 0.0

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        inputs = _trimmed(inputs)
        self._values.clear()
        self.critic.alone = not self._policy_learns()
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        mask = inputs["completion_mask"].unsqueeze(-1)
        values = self._values.pop()[:, -mask.shape[1] - 1 : -1]
        errors = value_errors(values, inputs["old_values"], inputs["returns"], self.critics.clip)
        critics = self.critics
        weights = errors.new_tensor([critics.coefficient] * len(self.reward_funcs) + [critics.kl_coefficient])
        lost = (errors * weights * mask).sum() / mask.sum().clamp(min=1)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["critics/loss"].append(self.accelerator.gather(lost.detach()).mean().item())
        if self.critic.alone:
            loss = loss * 0.0
        return loss + lost / (self.current_gradient_accumulation_steps if mode == "train" else 1)

    def _measured_kl(self) -> float | None:
        measured, self._kl = self._kl, None  # once for a rollout
        return measured

    def _policy_learns(self) -> bool:
        return self.state.global_step >= self.critics.warmup_steps

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """In a checkpoint of a whole model the critics stay among its weights, to be found again with them."""
        folder = Path(output_dir or self.args.output_dir)
        if hasattr(self.model, "peft_config") or not folder.name.startswith("checkpoint-"):
            weights = self.model.state_dict() if state_dict is None else state_dict
            own = {name.partition("critic.")[2]: value for name, value in weights.items() if _is_critic(name)}
            state_dict = {name: value for name, value in weights.items() if not _is_critic(name)}
            if self.args.should_save:
                (folder / CRITIC).parent.mkdir(parents=True, exist_ok=True)
                save_file({name: value.detach().cpu().contiguous().clone() for name, value in own.items()},
                          folder / CRITIC)  # fmt: skip
        super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if hasattr(self.model, "peft_config"):
            self.model.get_base_model().critic.load_state_dict(load_file(Path(resume_from_checkpoint) / CRITIC))


def _is_critic(name: str) -> bool:
    return name.startswith("critic.") or ".critic." in name
