"""The work of a training, by upstream's class of its arguments: what a stage does that does not say otherwise.

A class that is none of these is taken for one of text after text, forward and backward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.forecasting.passes import Drawing, Pass
from trimtab.pipelines.forecasting.work import Held, Rows, Work
from trimtab.pipelines.planning import field_types

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.architectures import Head
    from trimtab.pipelines.forecasting.known import Known


@dataclass(frozen=True)
class Shape:
    """What a trainer of trl does with a row.

    `texts` of each go through the policy; with a `reference` also through the model that it began with, which is asked
    `once` before the training where that comes by all rows (trainers/stored_dpo.py). `again` more texts of a row are
    only looked at, by the policy and the reference alike, as for an estimate of the KL.
    """

    texts: int = 1
    reference: bool = False
    once: bool = False
    again: int = 0
    head: Head = "words"


SHAPES = {
    "SFTConfig": Shape(),
    "DPOConfig": Shape(texts=2, reference=True, once=True),
    "KTOConfig": Shape(reference=True, again=1),
    "RewardConfig": Shape(texts=2, head="score"),
}


def updates(train: Any, rows: float, rows_of_update: float) -> float:
    """The steps of the optimizer."""
    if train.max_steps > 0:
        return train.max_steps
    return max(1, math.ceil(rows / rows_of_update)) * train.num_train_epochs


def offline(stage: Any, known: Known, shape: Shape, rows: Rows | None = None, held: Rows | None = None) -> Work:
    """A training on rows that are there, `rows` and `held` out, by default those of `data` and `eval_data`."""
    train, setting = stage.train, known.setting
    model = known.model(stage.model, shape.head)
    limit = getattr(train, "max_length", None)
    rows = (known.rows("data").shaped(shape.texts) if rows is None else rows).cut(limit)
    if held is None and stage.eval_data is not None:
        held = known.rows("eval_data").shaped(shape.texts)
    prepared = rows.count + (held.count if held else 0)
    if getattr(train, "packing", False) and limit:
        rows = rows.packed(limit)
    steps = updates(train, rows.count, setting.rows_of_update)
    learned = Pass(model, rows, steps * setting.rows_of_update, setting.batch, backward=True)
    if setting.tokens is not None:
        fit = setting.tokens / rows.of_batch(1)[0]
        learned = replace(learned, batch=min(setting.batch, max(1.0, fit)), limit=setting.tokens)
    if _is_flat(train):  # the rows of a batch are one long row
        whole = replace(rows, tokens=rows.tokens * setting.batch, asked=None)
        learned = replace(learned, texts=whole, rows=learned.rows / setting.batch, batch=1)
    passes = [learned, *_evaluations(train, held.cut(limit) if held else None, model, steps, setting)]
    models = [Held(model, is_trained=True)]
    if shape.reference:
        is_ahead = _asks_reference_ahead(train, shape, rows.count, setting.rows_of_update)
        looked = replace(learned, backward=False, rows=rows.count if is_ahead else learned.rows)
        if is_ahead and setting.tokens is not None:
            looked = replace(looked, batch=train.per_device_eval_batch_size, limit=math.inf)
        evaluated = [replace(one, rows=held.count) if held and is_ahead else one for one in passes[1:]]
        passes += [looked, *evaluated]
        if not is_ahead and setting.adapters is None:
            models.append(Held(model))
        if shape.again and getattr(train, "loss_type", None) != "apo_zero_unpaired":
            passes += [looked] * 2 * shape.again
    texts = prepared * rows.tokens.shape[1]
    return Work("trainer", tuple(models), tuple(passes), steps, texts, leaves=model)


def online(
    stage: Any, known: Known, judges: Sequence[Held] = (), critics: Sequence[Held] = (), *, looks_again: bool = False
) -> Work:
    """A training on what the policy says itself: drawn, judged, and learned from, under trl.GRPOConfig.

    `looks_again`: the policy's own log-probabilities of a rollout are computed also where trl needs none.
    """
    train, setting = stage.train, known.setting
    model = known.model(stage.model)
    prompts = known.rows("data")
    lengths = known.lengths(stage.model, train.max_completion_length)
    answers = replace(prompts.answered(lengths), count=prompts.count * train.num_generations, prompts=prompts.count)
    parts = train.steps_per_generation or setting.accumulation
    rollout = train.generation_batch_size / setting.ranks if train.generation_batch_size else setting.batch * parts
    steps = updates(train, prompts.count * train.num_generations, setting.rows_of_update)
    learned_rows = steps * setting.rows_of_update
    drawn_rows = learned_rows / max(1, train.num_iterations)
    most = train.max_completion_length
    draws = [Drawing(model, prompts, drawn_rows, rollout, lengths, most, train.num_generations, rollout)]
    learned = Pass(model, answers, learned_rows, setting.batch, backward=True, sorted=True)
    passes = [learned, *(Pass(judge.model, answers, drawn_rows, setting.batch, sorted=True) for judge in judges)]
    models = [Held(model, is_trained=True), *judges, *critics]
    if train.beta > 0:
        passes.append(replace(learned, backward=False, rows=drawn_rows))
        models += [] if setting.adapters else [Held(model)]
    if looks_again or train.num_iterations > 1 or parts > setting.accumulation:
        passes.append(replace(learned, backward=False, rows=drawn_rows))
    passes += [replace(learned, model=critic.model) for critic in critics]
    if stage.eval_data is not None:
        held = known.rows("eval_data")
        times = 1 + _evaluations_within(train, steps)
        asked = times * held.count * train.num_generations
        batch = train.per_device_eval_batch_size
        draws.append(Drawing(model, held, asked, batch, lengths, most, train.num_generations, batch))
    all_passes = tuple(passes)
    return Work("trainer", tuple(models), all_passes, steps, handled=drawn_rows, leaves=model, draws=tuple(draws))


def work(stage: Any, known: Known) -> Work:
    """What the trainer does whose arguments are `stage.train`, of trl's class or one derived from it."""
    if hasattr(stage.train, "max_completion_length") and hasattr(stage.train, "num_generations"):
        return online(stage, known, known.rewards(getattr(stage, "rewards", {})))
    arguments = field_types.bare(field_types.hints(type(stage))["train"])
    names = [cls.__name__ for cls in getattr(arguments, "__mro__", ())]
    return offline(stage, known, next((SHAPES[name] for name in names if name in SHAPES), Shape()))


def _asks_reference_ahead(train: Any, shape: Shape, rows: float, rows_of_update: float) -> bool:
    """Whether the reference's log-probabilities of all rows are computed before the training."""
    meets_all = train.max_steps * rows_of_update >= rows if train.max_steps > 0 else train.num_train_epochs >= 1
    is_stored = shape.once and meets_all and not getattr(train, "sync_ref_model", False)
    return is_stored or bool(getattr(train, "precompute_ref_log_probs", False))


def _is_flat(train: Any) -> bool:
    """Whether trl makes one row of a batch: where it is asked to, or packs whole texts."""
    packs_whole = getattr(train, "packing", False) and getattr(train, "packing_strategy", "bfd").startswith("bfd")
    return bool(getattr(train, "padding_free", False) or packs_whole)


def _evaluations(train: Any, held: Rows | None, model: Any, steps: float, setting: Any) -> list[Pass]:
    if held is None:
        return []
    times = 1 + _evaluations_within(train, steps)
    return [Pass(model, held, times * held.count, train.per_device_eval_batch_size)]


def _evaluations_within(train: Any, steps: float) -> float:
    """How often a training looks at held-out rows before it ends."""
    if str(getattr(train.eval_strategy, "value", train.eval_strategy)) == "epoch":
        return max(1.0, train.num_train_epochs)
    if str(getattr(train.eval_strategy, "value", train.eval_strategy)) == "steps":
        every = train.eval_steps or train.logging_steps
        return steps // every if every >= 1 else 1 / every
    return 0
