"""The models with which rewards read prompts, so that prompts that do not fit are found before a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import kinds, schema
from trimtab.rewards._vocabulary import identity

if TYPE_CHECKING:
    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.planning.recipe import Step


Model = tuple[Any, int | None]  # a tokenizer, and the tokens of a context
Ahead = Callable[["Step", str], Model | None]  # what is known of a model that a step above has still to make


def added(audit: Audit, rewards: Mapping[str, Mapping[str, Any]], ahead: Ahead) -> Audit:
    """The audit of a policy's prompts with the models of its rewards that are there already, or known ahead.

    A model with the policy's vocabulary needs the same room for an answer, one with another a token at least.
    """
    from trimtab.pipelines.data.audit.checking import Reader

    if not audit.readers:
        return audit
    policy, readers = audit.readers[0], list(audit.readers)
    for name, block in rewards.items():
        for tokenizer, context in models(block, audit.step, ahead):
            room = policy.room if identity(tokenizer) == identity(policy.tokenizer) else 1
            readers.append(Reader(f"the reward {name}", tokenizer, context, room))
    return replace(audit, readers=readers)


def models(block: Mapping[str, Any], step: Step, ahead: Ahead) -> Iterator[Model]:
    """Tokenizer and context of every model in a reward's block, and in those inside of it."""
    nested = [value for value in block.values() if isinstance(value, Mapping)]
    for value in nested:
        yield from models(value, step, ahead)
    if not isinstance(block.get("kind"), str):
        return
    kind = kinds.find(kinds.REWARDS, block["kind"])
    options = {key: value for key, value in block.items() if key in getattr(kind, "__dataclass_fields__", {})}
    pending = [value for value in options.values() if isinstance(value, str) and step.pending(value)]
    if hasattr(kind, "reader") and pending:
        made = [ahead(step, value) for value in pending]
        yield from (model for model in made if model is not None and model[0].chat_template)
    elif hasattr(kind, "reader"):
        try:
            yield schema.load_reward({"kind": block["kind"], **options}).reader()
        except (OSError, ValueError):  # the reward says so itself when it is loaded
            return
