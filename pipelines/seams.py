"""Every private or undocumented member of trl, transformers or accelerate that we touch.

Functions are imported from here and from nowhere else. Members that a subclass of ours has to use stand in `MEMBERS`,
with the file that does. tests/test_seams.py checks that all of them are still there: an upgrade that moves one fails
with its name, before it fails in a run.
"""

from __future__ import annotations

from transformers.integrations.integration_utils import rewrite_logs

__all__ = ["MEMBERS", "lean_head_on_cpu", "rewrite_logs"]

# class -> member -> the file that uses it
MEMBERS = {
    "trl.RewardTrainer": {
        "_prepare_dataset": "trainers/listwise_reward.py",  # documented in trl's customization guide
        "_set_signature_columns_if_needed": "trainers/listwise_reward.py",
        "compute_loss": "trainers/listwise_reward.py",
    },
}


def lean_head_on_cpu() -> None:
    """Lets trl's fused LM head skip prompts and padding on a CPU, as it does on a GPU, in tiles that fit its cache.

    trl scores every position where there is no Triton, to keep shapes fixed for accelerators that compile. A CPU does
    not, and spends most of a small model's step there. The loss is the same (tests/test_seams.py).
    """
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    utils._use_triton = lambda device: device.type == "cpu" or chunked_logprob._use_triton(device)
    chunked_logprob.TOKEN_CHUNK_SIZE = 256
