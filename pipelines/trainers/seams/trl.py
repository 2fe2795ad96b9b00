"""What we do with private and undocumented members of trl and transformers; seams/contract.py lists all of them."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.integrations.integration_utils import (
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
    rewrite_logs,
)
from trl.models import unwrap_model_for_generation
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head, disable_dropout_in_model

__all__ = [
    "ValueRecorder",
    "add_fused_lm_head",
    "attach_critic",
    "disable_dropout_in_model",
    "get_available_reporting_integrations",
    "get_reporting_integration_callbacks",
    "rewrite_logs",
    "token_logps",
    "unwrap_model_for_generation",
    "use_lean_head_on_cpu",
    "watch_gradient_norm",
]


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


def use_lean_head_on_cpu() -> None:
    """Lets trl's fused LM head skip prompts and padding on a CPU, as it does on a GPU, in tiles that fit its cache.

    trl scores every position where there is no Triton, to keep shapes fixed for accelerators that compile. A CPU does
    not, and spends most of a small model's step there. The loss is the same (tests/trainers/test_seams.py).
    """
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    utils._use_triton = lambda device: device.type == "cpu" or chunked_logprob._use_triton(device)
    chunked_logprob.TOKEN_CHUNK_SIZE = 256


def watch_gradient_norm(trainer: Any, take: Callable[[Any], None]) -> None:
    """Tells `take` the gradient's norm before clipping in every step: a number, a tensor, or None under some engines.

    transformers computes it in every step, and hands it on in those that it logs.
    """
    norm_of = trainer._get_grad_norm

    def watched(*args: Any, **kwargs: Any) -> Any:
        norm = norm_of(*args, **kwargs)
        take(norm)
        return norm

    trainer._get_grad_norm = watched


@dataclass
class ActorCriticOutput(FusedCausalLMOutput):
    """What a model with a critic returns to whoever scores tokens."""

    state_values: Tensor | None = None  # `values` is what dictionaries have, and this is one


class ValueRecorder:
    """Keeps the critics' values of forward passes, of whose output trl keeps nothing but log-probabilities."""

    def __init__(self) -> None:
        self._open: list[list[Tensor]] = []

    @contextlib.contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """A list that takes (N, L, heads) of every forward pass inside, but for those inside an inner recording."""
        values: list[Tensor] = []
        self._open.append(values)
        try:
            yield values
        finally:
            self._open.pop()

    def record(self, values: Tensor) -> None:
        """Called by the model's forward."""
        if self._open:
            self._open[-1].append(values)


def attach_critic(model: Any, critic: nn.Module) -> ValueRecorder:
    """Makes `critic` a part of `model`, which has trl's fused LM head: whoever scores tokens also gets their values.

    They are computed inside the model's forward, where DDP, FSDP and ZeRO have its parameters at hand, and are part
    of its output, so that DDP sees what they were computed from. The recorder that is returned keeps them.
    """
    recorder = ValueRecorder()
    scores_tokens, backbone = model.forward, model.base_model
    model.critic = critic

    @functools.wraps(type(model).forward)  # `generate` looks at the signature
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return scores_tokens(*args, **kwargs)
        states: list[Tensor] = []
        hook = backbone.register_forward_hook(
            lambda module, args, output: states.append(output.last_hidden_state), prepend=True
        )
        try:
            out = scores_tokens(*args, fused_lm_head=True, **kwargs)
        finally:
            hook.remove()
        inputs = {key: kwargs[key] for key in ("input_ids", "attention_mask") if key in kwargs}
        values = self.critic(states[0], inputs)
        recorder.record(values)
        return ActorCriticOutput(**out, state_values=values)

    model.forward = types.MethodType(forward, model)
    return recorder
