"""Prompts that a step above will sample and a reward could not read, known before either is launched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import trl

from trimtab.pipelines.data.audit import sources
from trimtab.pipelines.data.loading import files
from trimtab.pipelines.planning import preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.scoring import readers
from trimtab.pipelines.scoring.readers import Ahead

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


def check(
    step: Step, rewards: Mapping[str, Mapping[str, Any]], completions: trl.DatasetMixtureConfig, ahead: Ahead
) -> None:
    """Raises RecipeError for a prompt that a reward of a step would end it at, where its completions are still to be.

    A reward that says what follows from a failure is left alone.
    """
    named = [name for entry in completions.datasets for name in files(entry)]
    stopping = {name: block for name, block in rewards.items() if block.get("on_failure", "stop") == "stop"}
    for maker in step.waiting:
        if str(maker.output) in named and stopping:
            _check(maker, step, stopping, ahead)


def _check(maker: Step, step: Step, rewards: Mapping[str, Mapping[str, Any]], ahead: Ahead) -> None:
    from trimtab.pipelines.data.audit.checking import Reader

    stage = preflight.build(maker)
    audit = stage.audit_of(maker)
    for key, form in stage.reads().items() if audit.readers else ():
        block = getattr(stage, key)
        if "prompts" not in form.audit or block is None or audit.is_pending(block):
            continue
        for name, reward in rewards.items():
            for tokenizer, context in readers.models(reward, step, ahead):
                reader = Reader(f"the reward {name}", tokenizer, context)
                try:
                    long = audit.beyond(block, key, form, reader)
                except RecipeError:  # the check of the step that samples says so
                    return
                if len(long):
                    room = audit.readers[0].room
                    raise RecipeError(
                        f"{sources.source(block)}, row {long[0]}: the prompt fills the context of the reward {name} "
                        f"({context} tokens), as {len(long)} do, and {step.name} would stop at its completions. Write "
                        f"`max_prompt_tokens: {context - room}` in this block (with `overlong: drop`, or "
                        f"`truncate_left`), or `on_failure: abstain` in the reward's",
                        (*maker.path, key),
                    )
