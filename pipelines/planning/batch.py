"""The batch of an optimizer step: its rows, which are part of what a step is, and what makes them up, which is not.

    sft: {batch_size: 128, train: {per_device_train_batch_size: 16, ...}, ...}

With `batch_size`, the rows of an optimizer step over all ranks (completions where they are sampled), the size of a
micro-batch and the accumulation follow from the ranks of the launch; `per_device_train_batch_size` is then the largest
micro-batch, and without that key it is what the memory of a device is forecast to have room for. Without `batch_size`,
the three of TRL's keys and the ranks come to a batch.

    sft: {batch_size: 128, tokens_per_batch: 16384, ...}

makes micro-batches of as many of the same rows as have no more than so many tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import field_types, kinds, schema
from trimtab.pipelines.planning.errors import RecipeError

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step

TOKENS = "tokens_per_batch"
KEYS = ("batch_size", TOKENS)  # of a stage, beside its training arguments
SIZE, ACCUMULATION = "per_device_train_batch_size", "gradient_accumulation_steps"
ROLLOUT, STEPS = "generation_batch_size", "steps_per_generation"
PARTS = (SIZE, ACCUMULATION, ROLLOUT, STEPS, "auto_find_batch_size")  # stand for the batch and a rollout
ORDERS = ("random", "sequential")  # of `train_sampling_strategy`, that look at no batch


@dataclass(frozen=True)
class Asked:
    """What a stage says of its batch beside its training arguments: `batch_size` and `tokens_per_batch`."""

    rows: int | None = None
    tokens: int | None = None


@dataclass(frozen=True)
class Batch:
    """The rows of an optimizer step: those of a micro-batch times the accumulation times the ranks.

    `rollout` is how many completions are sampled at once, on all ranks, where a training samples. Where it `is_given`,
    the recipe says `batch_size`, and the others follow; where the size of a micro-batch then `is_open`, neither the
    recipe says it nor does the result depend on it. With `tokens`, `per_device` is a rank's rows of a step, which the
    trainer cuts.
    """

    per_device: int
    accumulation: int
    ranks: int
    rollout: int | None = None
    is_given: bool = False
    is_open: bool = False
    tokens: int | None = None

    @property
    def rows(self) -> int:
        """The global batch."""
        return self.per_device * self.accumulation * self.ranks

    @property
    def sizes(self) -> list[int]:
        """What a micro-batch can be, the largest first: what divides a rank's rows of a step and of a rollout."""
        share = self.per_device * self.accumulation
        if self.rollout:
            share = math.gcd(share, self.rollout // self.ranks)
        return [size for size in range(share, 0, -1) if share % size == 0]

    def keys(self) -> dict[str, int]:
        """The training arguments by which TRL makes it up."""
        parts = {SIZE: self.per_device, ACCUMULATION: self.accumulation}
        return parts | ({ROLLOUT: self.rollout} if self.rollout else {})

    def of_size(self, size: int) -> Batch:
        """The same rows in micro-batches of another size, one of `sizes`."""
        return replace(self, per_device=size, accumulation=self.per_device * self.accumulation // size)

    def __str__(self) -> str:
        if self.tokens is not None:
            return f"{self.rows} = {self.per_device} x {self.ranks} by {self.tokens} tokens"
        return f"{self.rows} = {self.per_device} x {self.accumulation} x {self.ranks}"


def of_keys(cls: Any, options: Mapping[str, Any], ranks: int) -> Batch | None:
    """The batch of a step of class `cls` that TRL's own keys come to; None where one of them is no number."""
    field, numbers = field_types.training(cls), _Numbers.of(cls, options)
    if field is None or numbers is None:
        return None
    size = numbers.size // ranks if _is_split(options.get(field) or {}) else numbers.size
    return Batch(size, numbers.accumulation, ranks, numbers.rollout(ranks))


def derived(
    cls: Any, options: dict[str, Any], asked: Asked, ranks: int, path: tuple[str, ...]
) -> tuple[dict[str, Any], Batch | None]:
    """The options of a step whose batch is `asked`, with the keys that make it up on so many ranks; and the batch.

    Raises RecipeError where nothing does, or where the recipe says too how it is made up.
    """
    field = field_types.training(cls)
    train = options.get(field) or {} if field else {}
    if field is None or not isinstance(train, dict):
        return options, None
    if asked.rows is None:
        raise RecipeError("cuts the rows of an optimizer step: say how many, by `batch_size`", (*path, TOKENS))
    rows = asked.rows
    _refuse_parts(train, (*path, field))
    if asked.tokens is not None:
        _check_tokens(cls, train, asked.tokens, path)
    numbers = _Numbers.of(cls, options)
    if numbers is None:  # the check of the keys says so
        return options, None
    place = (*path, "batch_size")
    if rows < 1:
        raise RecipeError(f"must be at least 1, got {rows}", place)
    _require_divisor(
        rows, ranks, f"rows cannot be shared out evenly on {ranks} ranks", place, _ranks_near(rows, ranks)
    )
    rollout = None
    if numbers.generations is not None:
        rollout = numbers.rollout_given or rows
        _require_divisor(rows, numbers.generations, f"is no multiple of num_generations, {numbers.generations}", place)
        uneven = f"completions cannot be shared out evenly on {ranks} ranks"
        _require_divisor(rollout, ranks, uneven, (*path, field, ROLLOUT))
    if asked.tokens is not None:
        batch = Batch(rows // ranks, 1, ranks, is_given=True, tokens=asked.tokens)
        return {**options, field: {**train, **batch.keys()}}, batch
    is_open = SIZE not in train and not _is_ordered_by_parts(train) and not cls.by_micro_batch(train)
    whole = Batch(rows // ranks, 1, ranks, rollout, is_given=True, is_open=is_open)
    batch = whole.of_size(next(size for size in whole.sizes if size <= max(numbers.size, 1)))
    return {**options, field: {**train, **batch.keys()}}, batch


def resized(step: Step, size: int) -> Step:
    """A step whose batch is made up of micro-batches of another size."""
    field = field_types.training(kinds.find(kinds.STAGES, step.kind, step.path))
    assert step.batch is not None
    assert field is not None
    made_up = step.batch.of_size(size)
    train = {**step.options[field], **made_up.keys()}
    return replace(step, options={**step.options, field: train}, batch=made_up)


def identity(cls: Any, options: Mapping[str, Any], batch: Batch, of_train: Mapping[str, Any]) -> dict[str, Any]:
    """What a fingerprint has of the training arguments: in the place of the keys that make up the batch, its rows.

    `of_train` is what it would have without. Where the result depends on how the batch is made up, that is part of it.
    """
    field = field_types.training(cls)
    train = options.get(field) or {} if field else {}
    kept = {key: value for key, value in of_train.items() if key not in PARTS}
    kept |= {"batch": batch.rows} | ({"rollout": batch.rollout} if batch.rollout else {})
    if _is_ordered_by_parts(train):
        return kept | {"parts": [batch.per_device, batch.accumulation, batch.ranks]}
    return kept | ({"micro_batch": batch.per_device} if cls.by_micro_batch(train) else {})


def _is_ordered_by_parts(train: Mapping[str, Any]) -> bool:
    """Whether which rows come together depends on micro-batches: in an order by length, or without the last rows."""
    return train.get("train_sampling_strategy", ORDERS[0]) not in ORDERS or bool(train.get("dataloader_drop_last"))


def _is_split(train: Mapping[str, Any]) -> bool:
    """Whether accelerate cuts a micro-batch of that size for all ranks, in the place of one for each."""
    settings = train.get("accelerator_config")
    return isinstance(settings, Mapping) and bool(settings.get("split_batches"))


def _check_tokens(cls: Any, train: Mapping[str, Any], tokens: int, path: tuple[str, ...]) -> None:
    """Raises RecipeError where micro-batches cannot be of so many tokens, or would train something else."""
    place = (*path, TOKENS)
    if tokens < 1:
        raise RecipeError(f"must be at least 1, got {tokens}", place)
    if not cls.cuts_by_tokens:
        message = "is not for this kind, whose trainer counts the rows of a micro-batch: leave it out, and set"
        raise RecipeError(f"{message} `{SIZE}`", place)
    if SIZE in train:
        raise RecipeError(f"follows from `{TOKENS}`: leave one of them out", (*path, "train", SIZE))
    packed = next((key for key in ("packing", "padding_free") if train.get(key)), None)
    if packed:
        message = f"lays rows end to end, of one length: count them with `{SIZE}` in the place of `{TOKENS}`"
        raise RecipeError(message, (*path, "train", packed))
    if cls.by_micro_batch(train) or _is_ordered_by_parts(train):
        message = "cuts a step anew each time, and here the result depends on how it is cut: leave it out, and set"
        raise RecipeError(f"{message} `{SIZE}`", place)


def _refuse_parts(train: Mapping[str, Any], place: tuple[str, ...]) -> None:
    """Raises RecipeError for keys that say what follows from `batch_size`, or would train another batch."""
    cures = {
        ACCUMULATION: "follows from `batch_size`: leave it out",
        STEPS: f"counts micro-batches, which follow from `batch_size`: give `{ROLLOUT}`, in completions",
        "auto_find_batch_size": "would train another batch than `batch_size`: lower per_device_train_batch_size",
    }
    for key, cure in cures.items():
        if train.get(key):
            raise RecipeError(cure, (*place, key))
    if _is_split(train):
        raise RecipeError("is not for `batch_size`: leave it out", (*place, "accelerator_config", "split_batches"))


def _require_divisor(rows: int, divisor: int, problem: str, place: tuple[str, ...], otherwise: str = "") -> None:
    if rows % divisor:
        below, above = rows // divisor * divisor, (rows // divisor + 1) * divisor
        raise RecipeError(f"{rows} {problem}: use {f'{below} or ' if below else ''}{above}{otherwise}", place)


def _ranks_near(rows: int, ranks: int) -> str:
    """The nearest numbers of ranks on which so many rows can be shared out."""
    fewer = max((count for count in range(1, ranks) if rows % count == 0), default=1)
    more = next((count for count in range(ranks + 1, rows + 1) if rows % count == 0), None)
    return f", or {fewer}{f' or {more}' if more else ''} ranks"


@dataclass(frozen=True)
class _Numbers:
    """What a block of training arguments says of its batch, upstream's defaults included."""

    size: int
    accumulation: int
    rollout_given: int | None = None
    steps: int | None = None
    generations: int | None = None

    @classmethod
    def of(cls, stage: Any, options: Mapping[str, Any]) -> _Numbers | None:
        """Those of a step of class `stage`; None where a value is no number, which the check of the keys says."""
        field = field_types.training(stage)
        train = options.get(field) or {} if field else {}
        if field is None or not isinstance(train, Mapping):
            return None
        defaults = field_types.training_defaults(stage)
        given = {key: train.get(key, defaults.get(key)) for key in (SIZE, ACCUMULATION, ROLLOUT, STEPS)}
        generations = train.get("num_generations", defaults.get("num_generations"))
        numbers: list[Any] = []
        for value in (*given.values(), generations if ROLLOUT in defaults else None):
            try:
                numbers.append(None if value is None else schema.coerce(value, int, ()))
            except RecipeError:
                return None
        if any(number is not None and number < 1 for number in numbers) or None in numbers[:2]:
            return None
        return cls(*numbers)

    def rollout(self, ranks: int) -> int | None:
        """How many completions are sampled at once on all ranks; None for a training that samples none."""
        if self.generations is None:
            return None
        return self.rollout_given or self.size * (self.steps or self.accumulation) * ranks
