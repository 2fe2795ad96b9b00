"""What is known of a model before it is made: its tokenizer and its context are those that it begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.training import added_tokens, inputs

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

_known: dict[str, tuple[Any, int | None] | None] = {}  # by fingerprint of the step that makes the model


def ahead(step: Step, name: str) -> tuple[Any, int | None] | None:
    """The tokenizer and the tokens of the context that the model `name` will have, which a step above is to make.

    None where that cannot be told: of a model with a vocabulary of its own, or one that is not right.
    """
    maker = next((source for source in step.waiting if str(source.output) == name), None)
    if maker is None:
        return None
    if maker.fingerprint not in _known:
        try:
            _known[maker.fingerprint] = _of(maker)
        except (RecipeError, OSError, ValueError):  # the check of that step says so
            _known[maker.fingerprint] = None
    return _known[maker.fingerprint]


def context(step: Step, model: trl.ModelConfig) -> int | None:
    """The longest text that a model reads, in tokens, also of one that a step above has to make from its sizes.

    None where nobody says it.
    """
    name = str(model.model_name_or_path)
    maker = step.maker(name)
    try:
        if maker is None or maker.done:
            return inputs.context(model)
        begins_with = preflight.build(maker).makes()
        if isinstance(begins_with, Mapping):
            return begins_with.get("max_position_embeddings")
        if isinstance(begins_with, str):
            begins_with = trl.ModelConfig(model_name_or_path=begins_with)
        return None if begins_with is None else context(maker, begins_with)
    except (RecipeError, OSError, ValueError):  # the check of that model says so
        return None


def require_context(step: Step, model: trl.ModelConfig, tokens: int, before: int, place: Sequence[str]) -> None:
    """Raises RecipeError where a model's context does not hold so many tokens, and `before` them a prompt's."""
    longest, name = context(step, model), str(model.model_name_or_path)
    if longest is not None and before + tokens > longest:
        maker = step.maker(name)
        whose = maker.name if maker else name
        prompt = " with its prompt" if before else ""
        raise RecipeError(f"{tokens} tokens{prompt} are more than the context of {whose}, {longest}: lower it", place)


def _of(maker: Step) -> tuple[Any, int | None] | None:
    stage = preflight.build(maker)
    model, train = stage.makes(), getattr(stage, "train", None)
    if isinstance(model, str):
        model = trl.ModelConfig(model_name_or_path=model)
    if not isinstance(model, trl.ModelConfig) or not model.model_name_or_path:
        return None
    if not maker.pending(model.model_name_or_path):
        return _grown(inputs.tokenizer(model, train, maker), stage), inputs.context(model)
    before = ahead(maker, model.model_name_or_path)
    if before is None:
        return None
    return _grown(inputs.as_trained(before[0], train, maker), stage), before[1]


def _grown(tokenizer: Any, stage: Any) -> Any:
    """A tokenizer with the tokens that the stage adds."""
    added_tokens.add(tokenizer, getattr(stage, "added_tokens", ()))
    return tokenizer
