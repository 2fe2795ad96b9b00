"""An optimizer in a recipe: `optimizer: {class: WORD, **its keys}` beside the `train` of a stage that trains.

    optimizer: {class: frugal, density: 0.25}                     # a file in pipelines/algorithms/optimizers
    optimizer: {class: pytorch_optimizer.Lion, betas: [0.9, 0.99]}    # any torch.optim.Optimizer that is installed
    optimizer: {state: $first}                                    # begins with the state that `first` has kept
    optimizer: $first                                             # the same

A word alone, `optimizer: frugal`, is the class with its defaults. Whether it takes its keys is found by constructing
it (training/optimizers.py); here is only looked at the block, without an import of torch.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import _source

KEY, CLASS, STATE = "optimizer", "class", "state"
ELSEWHERE = {
    "lr": "is `train.learning_rate`",
    "weight_decay": "is `train.weight_decay`, which norms and biases are kept from",
    "params": "are the model's",
}


def whole(value: Any) -> dict[str, Any]:
    """The block that a value of the key stands for."""
    if isinstance(value, Mapping):
        return dict(value)
    is_class = isinstance(value, str) and (value in kinds.words(kinds.OPTIMIZERS) or _is_dotted(value))
    return {CLASS if is_class else STATE: value}


def word_of(value: Any) -> str | None:
    """The word or dotted name of the class that a value of the key names, if it names one."""
    word = whole(value).get(CLASS) if value else None
    return word if isinstance(word, str) else None


def keys_of(block: Mapping[str, Any]) -> dict[str, Any]:
    """What of a block goes to the class."""
    return {key: value for key, value in block.items() if key not in (CLASS, STATE)}


def _checked(value: Any, path: Sequence[str]) -> Any:
    """The whole block. Raises RecipeError for one that names no optimizer, or sets what `train` does."""
    if value is None:
        return None
    if not isinstance(value, str | Mapping):
        raise RecipeError(f"expected a block with a `class`, or a word, got {value!r}", path)
    block = whole(value)
    for key in filter(ELSEWHERE.__contains__, block):
        raise RecipeError(f"not a key of an optimizer: it {ELSEWHERE[key]}", (*path, key))
    state = block.get(STATE)
    if STATE in block and (not isinstance(state, str) or not state):
        raise RecipeError(f"expected a stage, as $first, or a model's folder, got {state!r}", (*path, STATE))
    if CLASS not in block:
        if keys := keys_of(block):
            raise RecipeError(f"{next(iter(keys))!r} is a key of which `class`?", path)
        return block
    word, place = block[CLASS], (*path, CLASS)
    if isinstance(word, str) and "." in word and _source.locate(word) is None:
        package = word.partition(".")[0]
        raise RecipeError(
            f"{word} is not here: is {package} installed in this environment? (pip install 'trimtab[optimizers]' "
            "brings pytorch_optimizer)",
            place,
        )
    if isinstance(word, str) and "." in word:
        kinds.look(kinds.OPTIMIZERS, word, place)  # imported where it is constructed, since that takes seconds
    elif word not in kinds.words(kinds.OPTIMIZERS):
        kinds.find(kinds.OPTIMIZERS, word, place)
    return block


def _is_dotted(value: str) -> bool:
    return "." in value and "/" not in value and all(part.isidentifier() for part in value.split("."))


OptimizerBlock = typing.Annotated[dict | None, _checked]  # the type of a stage's field
