"""A model as its first weights and the LoRA updates of all rounds, combined in float32 with a weight each.

An update is bilinear, D = s B A, so extrapolating A and B separately is wrong. The iterates of momentum are sums of
whole updates: hat_T = theta_0 + sum_i w_i D_i with w = momentum.coefficients(a, T), theta_T with the first T of
coefficients(a, T + 1). Small adapter folders, each trained anew from its round's start, are all that rounds must keep.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from trimtab.pipelines.algorithms.weights import FLOATS, Weights, rewriting

PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# The keys of adapter_config.json that a plain linear LoRA may set; any other variant of peft's sets another one.
PLAIN = (
    "task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode r lora_alpha "
    "lora_dropout use_rslora rank_pattern alpha_pattern target_modules exclude_modules layers_to_transform "
    "layers_pattern init_lora_weights bias megatron_core qalora_group_size"
).split()


def combine(base: Path, adapters: Sequence[Path], weights: Sequence[float], out: Path) -> None:
    """Writes theta_0 + sum_i w_i s_i B_i A_i into the folder `out`, with everything else as in `base`.

    theta_0 are the float32 values of `base`, s = alpha / r (alpha / sqrt(r) with use_rslora), alpha by alpha_pattern.
    Memory is a few megabytes and one module's A and B of every adapter. Raises ValueError for adapters that are no
    plain LoRA of linear layers of `base`: DoRA, trained biases or whole modules, embeddings, transposed weights.
    """
    if len(adapters) != len(weights):
        raise ValueError(f"{len(adapters)} adapters have {len(weights)} weights")
    source = Weights(base)
    updates: dict[str, list[tuple[float, Path, str]]] = {}  # the weights' name -> (w s, adapter, module)
    for adapter, weight in zip(adapters, weights, strict=True):
        for name, scale, module in _modules(Path(adapter), source):
            updates.setdefault(name, []).append((weight * scale, Path(adapter), module))

    def pieces(name: str) -> Iterator[torch.Tensor]:
        if source.tensors[name].dtype not in FLOATS:
            yield from source.pieces(name)
            return
        factors = [(scale, *_factors(adapter, module)) for scale, adapter, module in updates.get(name, [])]
        row = 0
        for piece in source.pieces(name):
            values = piece.float()
            for scale, a, b in factors:
                values.addmm_(b[row : row + len(values)], a, alpha=scale)
            row += len(values)
            yield values

    with rewriting(source, Path(out), pieces):
        pass


def _modules(adapter: Path, source: Weights) -> Iterator[tuple[str, float, str]]:
    """(name of the weights in the base, scaling, name of the module in the adapter) of what an adapter updates."""
    config = json.loads((adapter / "adapter_config.json").read_text())
    _refuse_variants(adapter, config)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    for module in dict.fromkeys(key.removesuffix(A).removesuffix(B) for key in shapes):
        name = f"{module.removeprefix(PREFIX)}.weight"
        if any(len(shapes.get(module + factor, ())) != 2 for factor in (A, B)):
            raise ValueError(f"{adapter}: {module} has no LoRA factors of a linear layer")
        if name not in source.tensors:
            raise ValueError(f"{adapter} updates {name}, which {source.folder} lacks")
        (rank, columns), (rows, _) = shapes[module + A], shapes[module + B]
        if source.tensors[name].shape != (rows, columns):
            raise ValueError(f"{adapter} updates {name} as {(rows, columns)}: it is {source.tensors[name].shape}")
        alpha = _alpha(config, module.removeprefix(PREFIX))
        yield name, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank), module


def _alpha(config: dict[str, Any], module: str) -> float:
    """The alpha of a module: that of the first pattern that matches the end of its name, as peft has it."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return alpha
    return config["lora_alpha"]


def _refuse_variants(adapter: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ValueError(f"{adapter} is no LoRA adapter but {config.get('peft_type')}")
    refused = {key: value for key, value in config.items() if value and key not in PLAIN}
    if config.get("bias", "none") != "none":
        refused["bias"] = config["bias"]
    if config.get("init_lora_weights", True) not in (True, False, "gaussian", "orthogonal"):
        refused["init_lora_weights"] = config["init_lora_weights"]  # such as pissa, which changes the base
    if refused:
        settings = ", ".join(f"{key}={value!r}" for key, value in refused.items())
        raise ValueError(f"{adapter} is no plain LoRA: {settings}")


def _factors(adapter: Path, module: str) -> tuple[torch.Tensor, torch.Tensor]:
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        return file.get_tensor(module + A).float(), file.get_tensor(module + B).float()
