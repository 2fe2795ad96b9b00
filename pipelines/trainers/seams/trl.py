"""Every private or undocumented member of trl and transformers that we touch, but for what engines need."""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import TrainerCallback
from transformers.integrations.integration_utils import rewrite_logs
from trl.trainer.utils import FusedCausalLMOutput, disable_dropout_in_model

__all__ = [
    "MEMBERS",
    "ExactRollouts",
    "attach_critic",
    "disable_dropout_in_model",
    "lean_head_on_cpu",
    "rewrite_logs",
    "token_logps",
]

# class -> member -> the file that uses it
MEMBERS = {
    "trl.RewardTrainer": {
        "_prepare_dataset": "trainers/listwise_reward.py",  # documented in trl's customization guide
        "_set_signature_columns_if_needed": "trainers/listwise_reward.py",
        "compute_loss": "trainers/listwise_reward.py",
    },
    "trl.SFTTrainer": {
        "compute_loss": "trainers/lists.py",
        "log": "trainers/lists.py",
    },
    "trl.GRPOTrainer": {
        "_calculate_rewards": "trainers/constrained_grpo.py",
        "_generate_and_score_completions": "trainers/constrained_grpo.py",
        "_get_train_sampler": "seams.py",
        "_save_checkpoint": "seams.py",
        "_load_optimizer_and_scheduler": "seams.py",
        "_get_output_dir": "seams.py",
        "compute_loss": "trainers/constrained_grpo.py",
        "training_step": "trainers/constrained_grpo.py",
        "_get_per_token_logps_and_entropies": "trainers/constrained_ppo.py",
        "create_optimizer": "trainers/constrained_ppo.py",
        "_save": "trainers/constrained_ppo.py",
        "_load_from_checkpoint": "trainers/constrained_ppo.py",
    },
    "transformers.Trainer": {"_save": "seams.py"},
}


def token_logps(
    model: Any, input_ids: Tensor, attention_mask: Tensor, learned: Tensor
) -> tuple[Tensor, Tensor | None]:
    """log pi(token | tokens before) in nats, (N, T), 0 where `learned` (N, T; bool) is False; and a MoE's router loss.

    Through the fused LM head that trl's trainers give their model, which builds no (N, T, vocabulary) logits.
    """
    labels = input_ids.masked_fill(~learned, -100)
    out = model(input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False, fused_lm_head=True)
    # prompt tuning puts virtual tokens in front; no token precedes the first one
    logps = out.log_probs[:, 1 - input_ids.shape[1] :].float()
    return F.pad(logps, (1, 0)), out.aux_loss


def lean_head_on_cpu() -> None:
    """Lets trl's fused LM head skip prompts and padding on a CPU, as it does on a GPU, in tiles that fit its cache.

    trl scores every position where there is no Triton, to keep shapes fixed for accelerators that compile. A CPU does
    not, and spends most of a small model's step there. The loss is the same (tests/test_seams.py).
    """
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    utils._use_triton = lambda device: device.type == "cpu" or chunked_logprob._use_triton(device)
    chunked_logprob.TOKEN_CHUNK_SIZE = 256


@dataclass
class ActorCriticOutput(FusedCausalLMOutput):
    state_values: Tensor | None = None  # `values` is what dictionaries have, and this is one


def attach_critic(model: Any, critic: nn.Module) -> list[Tensor]:
    """Makes `critic` a part of `model`, which has trl's fused LM head: whoever scores tokens also gets their values.

    They are computed inside the model's forward, where DDP, FSDP and ZeRO have its parameters at hand, and are part
    of its output, so that DDP sees what they were computed from. trl keeps only log-probabilities of that output, so
    values (N, L, heads) are also appended to the list that is returned, one entry a call.
    """
    inner, found, hidden = model.forward, [], []
    model.critic = critic
    model.base_model.register_forward_hook(
        lambda module, args, output: hidden.append(output.last_hidden_state) if hidden == ["next"] else None
    )

    @functools.wraps(type(model).forward)  # `generate` looks at the signature
    def forward(self, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return inner(*args, **kwargs)
        hidden[:] = ["next"]
        try:
            out = inner(*args, fused_lm_head=True, **kwargs)
            inputs = {key: kwargs[key] for key in ("input_ids", "attention_mask") if key in kwargs}
            values = self.critic(hidden[1], inputs)
        finally:
            hidden.clear()
        found.append(values)
        return ActorCriticOutput(**out, state_values=values)

    model.forward = types.MethodType(forward, model)
    return found


class ExactRollouts:
    """Mixin before trl.GRPOTrainer: a run that goes on from any checkpoint ends with the weights of an undisturbed
    one.

    trl 1.16 forgets three things. Its RepeatSampler shuffles every epoch from where the last one has left its
    generator, which begins anew on resume, so that later epochs have other prompts: here the epoch seeds it. Rollouts
    that are still to be learned from are gone and are made anew, by newer weights (as intended by
    https://github.com/huggingface/trl/pull/3148), and the place in them begins at 0 again, so that all later rollouts
    are made at other steps: here both are in the checkpoint, as `rollouts.json` and one file per rank.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.add_callback(_SeedEpoch(self))

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:
        self.epoch_sampler = _EpochSampler(super()._get_train_sampler(dataset))
        return self.epoch_sampler

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self._is_in_rollout():
            parts = {f"{part}/{key}": value.contiguous().clone()
                     for part, batch in enumerate(self._buffered_inputs) for key, value in batch.items()}  # fmt: skip
            save_file(parts, self._rollouts(folder))
        if self.args.should_save:
            (folder / "rollouts.json").write_text(json.dumps({"step": self._step}))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        folder = Path(checkpoint)
        self._step = json.loads((folder / "rollouts.json").read_text())["step"]
        if self._is_in_rollout():
            path = self._rollouts(folder)
            if not path.exists():
                raise FileNotFoundError(f"{path} is missing: this checkpoint was written by fewer processes")
            self._buffered_inputs = [{} for _ in range(self.args.steps_per_generation)]
            for name, value in load_file(path).items():
                part, key = name.split("/")
                self._buffered_inputs[int(part)][key] = value.to(self.accelerator.device)

    def _is_in_rollout(self) -> bool:
        return self._step % (self.args.steps_per_generation * self.num_iterations) != 0

    def _rollouts(self, folder: Path) -> Path:
        return folder / f"rollouts-{self.accelerator.process_index}.safetensors"


class _EpochSampler(Sampler):
    """trl's RepeatSampler with an order of each epoch that depends on nothing else."""

    def __init__(self, sampler: Any):
        self.sampler, self.epoch = sampler, 0

    def __iter__(self) -> Iterator[int]:
        if self.sampler.shuffle:
            self.sampler.generator.manual_seed((self.sampler.seed or 0) + self.epoch)
        return iter(self.sampler)

    def __len__(self) -> int:
        return len(self.sampler)


class _SeedEpoch(TrainerCallback):
    # accelerate's set_epoch does not reach a custom sampler behind the wrappers of several processes
    def __init__(self, trainer: Any):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.epoch_sampler.epoch = int((state.epoch or 0) + 1e-6)
