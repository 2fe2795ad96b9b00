"""Engines (DDP, FSDP, DeepSpeed, vLLM): what accelerate, transformers and vLLM have to be told in private."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a plan asks whether there is an engine, and needs no torch
    import torch


def sharding() -> str | None:
    """FSDP or DEEPSPEED where this process is a rank of such a launch."""
    engines = ("FSDP", "DEEPSPEED")
    return next((e for e in engines if os.environ.get(f"ACCELERATE_USE_{e}", "").lower() == "true"), None)


def prepare_cpu_engines() -> None:
    """Patches accelerate and transformers so that FSDP and DeepSpeed run on a machine without accelerators.

    accelerate would make plain DDP of FSDP there, and knows no backend for DeepSpeed: both get gloo. transformers
    would refuse bf16. The runner calls it once, before the process group is made; elsewhere it does nothing.
    """
    engine = sharding()
    if engine is None:
        return
    import torch

    if torch.accelerator.is_available():
        return
    import transformers.training_args
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
    transformers.training_args.is_torch_bf16_gpu_available = lambda: True
    if engine == "DEEPSPEED":
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # or it compiles one, for minutes


def on_one_device(args: Any) -> None:
    """Keeps a process to one device: of all that it sees, transformers would make a torch.nn.DataParallel.

    An optimizer step would learn from as many times the rows. Ranks are what several devices are for.
    """
    if args.n_gpu > 1:
        args._n_gpu = 1


@contextlib.contextmanager
def whole_models() -> Iterator[None]:
    """Models that are loaded here are whole on every rank, also where ZeRO-3 splits what it trains.

    transformers remembers that a training is under ZeRO-3, for whatever it loads after.
    """
    from transformers.integrations import deepspeed

    remembered = deepspeed._hf_deepspeed_config_weak_ref
    deepspeed._hf_deepspeed_config_weak_ref = None
    try:
        yield
    finally:
        deepspeed._hf_deepspeed_config_weak_ref = remembered


def end_training(trainer: Any, checkpoint: Path | None) -> None:
    """Leaves a trainer that has loaded the checkpoint of its last step as that step has left it."""
    trainer.is_in_train = False
    trainer._load_rng_state(None if checkpoint is None else str(checkpoint))


def has_gradient(trainer: Any) -> bool:
    """Whether a gradient that this rank holds is not 0, just before an optimizer step; True where none can be seen."""
    if trainer.is_deepspeed_enabled:  # which has taken its step already, and tells the norm of all ranks
        return bool(trainer.model_wrapped.get_global_grad_norm() != 0)
    gradients = [value.grad for value in trainer.model.parameters() if value.grad is not None]
    shards = (value.to_local() if hasattr(value, "to_local") else value for value in gradients)
    return not gradients or any(bool(shard.any()) for shard in shards)


def local_weights(trainer: Any) -> Iterator[torch.Tensor]:
    """The trained weights that this rank holds: its shards, where FSDP or ZeRO-3 split them."""
    for value in trainer.model.parameters():
        if value.requires_grad:
            shard = getattr(value, "ds_tensor", value).detach()
            yield shard.to_local() if hasattr(shard, "to_local") else shard


def parameter_count(model: Any) -> int:
    """The numbers of a whole model, also where FSDP or ZeRO-3 split them; tied weights count once."""
    return sum(getattr(value, "ds_numel", value.numel()) for value in model.parameters())


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Training arguments that are constructed here tell no engine of themselves, and hear of none.

    They would leave words in the environment for accelerate, and make transformers remember ZeRO-3.
    """
    before = dict(os.environ)
    os.environ.update(ACCELERATE_USE_DEEPSPEED="false", ACCELERATE_USE_FSDP="false")
    try:
        with whole_models():
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def gradients_kept(trainer: Any, model: Any) -> Iterator[None]:
    """Gradients of a pass in here are kept on its rank, and shared with those of the pass that ends the step.

    That is what transformers does between the micro-batches of its own accumulation.
    """
    state, is_deepspeed = trainer.accelerator.gradient_state, trainer.is_deepspeed_enabled
    state._set_sync_gradients(False)
    try:
        with contextlib.nullcontext() if is_deepspeed else trainer.accelerator.no_sync(model):
            yield
    finally:
        state._set_sync_gradients(True)


@contextlib.contextmanager
def saved_whole(trainer: Any) -> Iterator[None]:
    """What is saved here is a whole model, where checkpoints of FSDP are in shards."""
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        yield
        return
    in_checkpoints = plugin.state_dict_type
    plugin.set_state_dict_type("FULL_STATE_DICT")
    try:
        yield
    finally:
        plugin.set_state_dict_type(in_checkpoints)


def save_model(trainer: Any, folder: Path) -> None:
    """`trainer.save_model` in float32, whatever the engine; called by every rank.

    DeepSpeed with bf16 or fp16 trains float32 weights that its optimizer keeps, and would save the rounded copies.
    """
    import torch

    model = trainer.accelerator.unwrap_model(trainer.model)
    adapters = hasattr(model, "peft_config")
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad or not adapters}
    if not trainer.is_deepspeed_enabled or all(value.dtype == torch.float32 for value in parameters.values()):
        with saved_whole(trainer):
            trainer.save_model(str(folder))
        return
    from deepspeed.runtime.zero import GatheredParameters
    from deepspeed.utils import safe_get_full_fp32_param

    every = dict(model.named_parameters(remove_duplicate=False))  # tied ones by both names
    weights = {} if adapters else {name: value for name, value in model.state_dict().items() if name not in every}
    for name, value in parameters.items():  # one at a time: each is gathered on every rank
        with GatheredParameters([value]):
            whole = safe_get_full_fp32_param(value)
            whole = value if whole is None else whole  # that was not trained
            if trainer.args.should_save:
                weights[name] = whole.detach().float().cpu().clone()
    trainer._save(str(folder), state_dict=weights)
    config = folder / "config.json"
    if trainer.args.should_save and not adapters:
        config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def stop_vllm(llm: Any) -> None:
    """Ends the processes of a vllm.LLM, and with them its hold on the GPUs."""
    llm.llm_engine.engine_core.shutdown()
