"""Every private or undocumented member of trl, transformers or accelerate that we touch.

Functions are imported from here and from nowhere else. Members that a subclass of ours has to use stand in `MEMBERS`,
with the file that does. tests/test_seams.py checks that all of them are still there: an upgrade that moves one fails
with its name, before it fails in a run.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.integrations.integration_utils import rewrite_logs

__all__ = ["MEMBERS", "lean_head_on_cpu", "rewrite_logs", "token_logps"]

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
