"""The cheapest change by which a step fits, found by forecasting every change of its setting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

from trimtab.pipelines.forecasting.forecast import Forecast, Forecaster
from trimtab.pipelines.forecasting.setting import Engine, Setting
from trimtab.pipelines.planning.recipe import Step

# accelerate configuration -> its engine; in the order in which they are worth a try
ENGINES = {
    "fsdp2": Engine("everything"),
    "zero3": Engine("everything", rounds_weights=True),
    "zero3_offload": Engine("everything", offloads=True, rounds_weights=True),
}
LORA = (16, "all-linear")
CHANGES_RESULT = 4  # as much as so many changes that leave the result alone


@dataclass(frozen=True)
class Cure:
    """A change of a step's block, as one writes it, and the forecast under it."""

    changes: tuple[str, ...]
    forecast: Forecast

    def __str__(self) -> str:
        return " and ".join(f"`{change}`" for change in self.changes)


def cheapest(forecaster: Forecaster, step: Step, setting: Setting) -> Cure | None:
    """The change that fits with the fewest keys, of those the quickest; None where none does.

    What changes the result (adapters, bfloat16) comes after what does not.
    """
    cures: list[tuple[int, Cure]] = []
    for cost, changes, changed in sorted(_changes(step, setting), key=lambda change: change[0]):
        if cures and cost > cures[0][0]:
            break
        forecast = forecaster.under(step, changed)
        if forecast.fits:
            cures.append((cost, Cure(changes, forecast)))
    return min((cure for _, cure in cures), key=lambda cure: cure.forecast.seconds, default=None)


def _changes(step: Step, setting: Setting) -> Iterator[tuple[int, tuple[str, ...], Setting]]:
    """(cost, keys, setting) of all changes together and alone."""
    choices = (_batches(step, setting), _saved(setting), _engines(setting), _precision(setting), _adapters(setting))
    for chosen in product(*choices):
        changes = tuple(change for change, _, _ in chosen if change)
        cost = sum(cost for _, cost, _ in chosen)
        changed = setting
        for _, _, values in chosen:
            changed = replace(changed, **values)
        if changes:
            yield cost, changes, changed


Choice = list[tuple[str, int, dict]]  # the change as it is written, its cost, and its values of a setting
AS_IT_IS: tuple[str, int, dict] = ("", 0, {})


def _batches(step: Step, setting: Setting) -> Choice:
    """Smaller batches of a rank, with as many rows behind a step of the optimizer: the fingerprint stays."""
    choices = [AS_IT_IS]
    if setting.tokens is not None:
        halves = (setting.tokens >> times for times in range(1, setting.tokens.bit_length()))
        return choices + [(f"tokens_per_batch: {tokens}", 1, {"tokens": tokens}) for tokens in halves]
    follows = step.batch is not None and step.batch.is_given
    whole = setting.batch * setting.accumulation
    for batch in (size for size in range(setting.batch - 1, 0, -1) if setting.batch % size == 0):
        accumulation = "" if follows else f", gradient_accumulation_steps: {whole // batch}"
        change = f"train: {{per_device_train_batch_size: {batch}{accumulation}}}"
        choices.append((change, 1, {"batch": batch, "accumulation": whole // batch}))
    return choices


def _saved(setting: Setting) -> Choice:
    saved = ("train: {gradient_checkpointing: true}", 1, {"checkpointing": True})
    return [AS_IT_IS] if setting.checkpointing else [AS_IT_IS, saved]


def _engines(setting: Setting) -> Choice:
    if setting.on_cpu or setting.engine.sharded == "everything":
        return [AS_IT_IS]
    several = {name: engine for name, engine in ENGINES.items() if setting.ranks > 1 or engine.offloads}
    return [AS_IT_IS, *((f"accelerate: {name}", 1, {"engine": engine}) for name, engine in several.items())]


def _precision(setting: Setting) -> Choice:
    changed = ("train: {bf16: true}", CHANGES_RESULT, {"bf16": True})
    return [AS_IT_IS] if setting.bf16 or setting.on_cpu else [AS_IT_IS, changed]


def _adapters(setting: Setting) -> Choice:
    written = f"model: {{use_peft: true, lora_r: {LORA[0]}, lora_target_modules: {LORA[1]}}}"
    return [AS_IT_IS] if setting.adapters else [AS_IT_IS, (written, CHANGES_RESULT, {"adapters": LORA})]
