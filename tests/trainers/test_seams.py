"""The upstream members that we rely on are still there."""

import importlib
import inspect

import pytest

from trimtab.pipelines.trainers.seams import trl


@pytest.mark.parametrize("owner", trl.MEMBERS)
def test_members_exist(owner):
    module, _, name = owner.rpartition(".")
    for member, file in trl.MEMBERS[owner].items():
        assert hasattr(getattr(importlib.import_module(module), name), member), f"{owner}.{member}, used by {file}"


def test_signatures_we_override():
    import trl

    prepare = inspect.signature(trl.RewardTrainer._prepare_dataset)
    assert list(prepare.parameters) == ["self", "dataset", "processing_class", "args", "dataset_name"]
    loss = inspect.signature(trl.RewardTrainer.compute_loss)
    assert list(loss.parameters) == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert "self._metrics[mode]" in inspect.getsource(trl.RewardTrainer.compute_loss)


def test_the_lean_head_gives_the_same_loss_and_gradient(model, monkeypatch):
    """Each of the fused head's outputs, with prompt and padding masked, as trl computes it and as we let it."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    def outcome():
        policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        utils.add_fused_lm_head(policy, outputs=("log_probs", "entropy"))
        ids = torch.randint(5, 250, (3, 300), generator=torch.Generator().manual_seed(0))
        labels = ids.clone()
        labels[:, :7] = -100
        labels[1, 200:] = -100
        out = policy(input_ids=ids, labels=labels, fused_lm_head=True)
        out.loss.backward()
        return out.loss, out.log_probs, out.entropy, policy.get_input_embeddings().weight.grad

    monkeypatch.setattr(utils, "_use_triton", chunked_logprob._use_triton)  # as trl has it
    monkeypatch.setattr(chunked_logprob, "TOKEN_CHUNK_SIZE", 4096)
    theirs = outcome()
    assert not utils._use_triton(torch.device("cpu"))
    trl.lean_head_on_cpu()
    assert utils._use_triton(torch.device("cpu"))
    for ours, expected in zip(outcome(), theirs, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-5)


def test_rewrite_logs():
    assert trl.rewrite_logs({"loss": 1, "eval_loss": 2}) == {"train/loss": 1, "eval/loss": 2}
