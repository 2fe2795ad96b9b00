"""The sizes of a model: from its configuration, by a model without weights on torch's device `meta`."""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimtab.pipelines.planning import memos

Head = Literal["words", "score"]
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# where peft puts adapters unless told otherwise, by the ends of names
ADAPTED = ("q_proj", "v_proj", "query", "value", "c_attn", "qkv_proj", "query_key_value")


@dataclass(frozen=True)
class Architecture:
    """A model's sizes, in numbers of numbers.

    `linears` are (name, inputs, outputs) of the matrices that every token is multiplied with; `inside` is what one
    token leaves in one layer for the backward pass, and `cached` what it leaves there for the tokens to come. `width`
    is the size of a hidden state, and `bytes` that of a weight as it is loaded.
    """

    parameters: int
    tensors: int
    layers: int
    width: int
    inside: int
    cached: int
    vocabulary: int
    linears: tuple[tuple[str, int, int], ...]
    head: Head = "words"
    bytes: int = 4

    @property
    def multiplied(self) -> float:
        """The weights that a token is multiplied with."""
        return sum(inputs * outputs for _, inputs, outputs in self.linears)

    @property
    def head_multiplied(self) -> float:
        """Those of them in the head that gives words, which looks at no more than the tokens that count."""
        return sum(inputs * outputs for name, inputs, outputs in self.linears if name.endswith("lm_head"))

    def adapters(self, rank: int, targets: str | Collection[str] | None) -> int:
        """The parameters of LoRA adapters of that rank: rank x (inputs + outputs) for each matrix that has one."""
        names = ADAPTED if targets is None else targets
        inside = [linear for linear in self.linears if not linear[0].endswith(("lm_head", "score"))]
        if names == "all-linear":
            adapted = inside
        else:
            ends = (names,) if isinstance(names, str) else tuple(names)
            adapted = [linear for linear in inside if linear[0].endswith(ends)]
        return sum(rank * (inputs + outputs) for _, inputs, outputs in adapted)


def of_config(config: Mapping[str, Any], head: Head = "words", dtype: str | None = "float32") -> Architecture:
    """The sizes of a model with that configuration, which has its `model_type`."""
    return _remembered(json.dumps(config, sort_keys=True, default=str), head, dtype or "float32")


@functools.cache
def _remembered(config: str, head: Head, dtype: str) -> Architecture:
    sizes = memos.recalled("architectures", [config, head, dtype], lambda: asdict(_of_json(config, head, dtype)))
    return Architecture(**{**sizes, "linears": tuple(map(tuple, sizes["linears"]))})


def _of_json(config: str, head: Head, dtype: str) -> Architecture:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    written = json.loads(config)
    settings = AutoConfig.for_model(written.pop("model_type"), **written)
    settings.num_labels = 1 if head == "score" else settings.num_labels
    made_by = AutoModelForSequenceClassification if head == "score" else AutoModelForCausalLM
    with torch.device("meta"):
        model = made_by.from_config(settings)
    text = settings.get_text_config()
    width = text.hidden_size
    modules = dict(model.named_modules())
    linears = [(name, *_shape(module)) for name, module in modules.items() if _shape(module)]
    layers = max(1, text.num_hidden_layers)
    heads = text.num_attention_heads
    cached = (
        2 * (getattr(text, "num_key_value_heads", None) or heads) * (getattr(text, "head_dim", None) or width // heads)
    )
    parameters = list(model.parameters())
    dtype = str(getattr(settings, "dtype", None) or "float32") if dtype == "auto" else dtype
    return Architecture(
        parameters=sum(parameter.numel() for parameter in parameters),
        tensors=len(parameters),
        layers=layers,
        width=width,
        inside=_inside(linears, width, layers),
        cached=cached,
        vocabulary=text.vocab_size,
        linears=tuple(linears),
        head=head,
        bytes=BYTES.get(dtype.removeprefix("torch."), 4),
    )


def _shape(module: Any) -> tuple[int, int] | tuple[()]:
    """Inputs and outputs of a module that is a matrix: Linear, or GPT-2's Conv1D, which lies the other way."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() != 2 or type(module).__name__ == "Embedding":
        return ()
    outputs, inputs = weight.shape
    return (outputs, inputs) if type(module).__name__ == "Conv1D" else (inputs, outputs)


def _inside(linears: list[Any], width: int, layers: int) -> int:
    """What a token leaves in a layer: two norms, the matrices' outputs, and what stands between them.

    A norm keeps its input twice. The output of a matrix is kept by what follows it; between the matrices of a gated
    block there are two more results of its size, and attention keeps its own.
    """
    of_layers = [outputs for name, _, outputs in linears if not name.endswith(("lm_head", "score"))]
    wide = max(of_layers, default=width)
    return round(sum(of_layers) / layers) + 6 * width + 2 * wide
