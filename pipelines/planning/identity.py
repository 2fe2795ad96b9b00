"""What of a step's options determines its result, and therefore its fingerprint.

Content instead of place, fingerprints instead of references, and nothing of what a class says is neutral: the keys in
the attribute `neutral` of a stage's or a reward's class, and of training arguments those about logging and saving.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.pipelines.planning import adapters, batch, field_types, kinds, optimizer_blocks
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import content_hash, is_local
from trimtab.pipelines.planning.references import References, is_reference
from trimtab.pipelines.planning.yaml_words import settled
from trimtab.rewards import _source

# Keys of transformers' and trl's training arguments that cannot change a result, so that changing them retrains
# nothing. Saving and evaluating are not neutral when `load_best_model_at_end` chooses among checkpoints.
TRAINING = (
    "report_to logging_dir logging_strategy logging_steps logging_first_step log_level log_level_replica "
    "log_on_each_node logging_nan_inf_filter disable_tqdm dataset_num_proc dataloader_num_workers "
    "dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor ddp_timeout push_to_hub "
    "hub_model_id hub_strategy hub_private_repo hub_always_push hub_revision skip_memory_metrics project"
).split()
LIMIT = "unpacked_gb"  # of a dataset: it refuses rows, and changes none
TRAINING_UNLESS_BEST = (
    "save_strategy save_steps save_total_limit save_on_each_node eval_strategy eval_steps per_device_eval_batch_size"
).split()


@dataclass(frozen=True)
class Identities:
    """Turns the options of a stage's class into what its fingerprint is of."""

    references: References

    def of_options(
        self, cls: Any, options: dict[str, Any], path: tuple[str, ...], of_step: batch.Batch | None = None
    ) -> dict[str, Any]:
        """The options of a step of class `cls`, its defaults included: a new default is a new step.

        `of_step` is the batch of one that trains, which stands in the place of the keys that make it up.
        """
        defaults = {field.name: field_types.default(field) for field in dataclasses.fields(cls)}
        identity = {}
        for key, value in {**defaults, **options}.items():
            if key in cls.neutral:
                continue
            if isinstance(value, dict):
                skipped = cls.neutral_inside(key, value)
                value = {name: item for name, item in value.items() if name not in skipped}
            if not value and key in cls.neutral_when_empty:
                continue
            if key in cls.alike:
                value = cls.alike[key].get(value, value)
            identity[key] = self._of(value, (*path, key))
            if key == optimizer_blocks.KEY and (word := optimizer_blocks.word_of(value)):
                identity[key] = {**optimizer_blocks.whole(identity[key]), "class": source(kinds.OPTIMIZERS, word)}
            if value and key in getattr(cls, "names_code", ()):
                identity[key] = [_code(word) for word in (value if isinstance(value, list) else [value])]
        trained = field_types.training(cls)
        if of_step is not None and trained is not None:
            identity[trained] = batch.identity(cls, options, of_step, identity.get(trained) or {})
        return identity

    def _of(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, dict) and isinstance(value.get("kind"), str):
            return self._of_reward(value, path)
        if isinstance(value, dict):
            kept = {key: item for key, item in value.items() if key not in ("layout", LIMIT)}
            entries = {key: self._of(item, (*path, str(key))) for key, item in kept.items()}
            return entries | self._of_layout(value.get("layout"), (*path, "layout"))
        if isinstance(value, list):
            return [self._of(item, (*path, str(index))) for index, item in enumerate(value)]
        block = self.references.block(value)
        if block is not None:
            return self._of(block, path)
        if is_reference(value):
            target, rest = self.references.target(value, path)
            if not isinstance(target, str):
                return {"step": target.fingerprint, "folder": rest}
            value = target + rest
        if isinstance(value, str) and is_local(value.partition("#")[0]):
            file, _, word = value.partition("#")
            if adapter := adapters.find(file):
                return adapter.identity()
            return {"sha256": content_hash(file), **({"word": word} if word else {})}
        return settled(value)

    def _of_layout(self, value: Any, path: tuple[str, ...]) -> dict[str, Any]:
        """The layout of a data block, a word or a block with `kind`; its source file is part of what it says."""
        block = value if isinstance(value, dict) else {"kind": value}
        if not isinstance(block.get("kind"), str):
            return {} if value is None else {"layout": value}  # the check of the block says so
        entries = {key: self._of(item, (*path, str(key))) for key, item in block.items()}
        return {"layout": {**entries, "kind": source(kinds.LAYOUTS, block["kind"])}}

    def _of_reward(self, block: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        """A block with a `kind` inside a stage is a reward's; its source file is part of what it says."""
        try:
            target = kinds.find(kinds.REWARDS, block["kind"], path)
        except (RecipeError, ImportError):
            target = None  # the check of the block says so
        skipped = getattr(target, "neutral", ())
        entries = {key: self._of(item, (*path, str(key))) for key, item in block.items() if key not in skipped}
        for key in getattr(target, "names_code", ()):
            if isinstance(block.get(key), str):
                entries[key] = _code(block[key])
        return {**entries, "kind": source(kinds.REWARDS, block["kind"])}


def neutral_arguments(block: Mapping[str, Any]) -> Collection[str]:
    """The keys of a block of training arguments that stay out of the fingerprint."""
    return {*TRAINING} if block.get("load_best_model_at_end") else {*TRAINING, *TRAINING_UNLESS_BEST}


def source(package: str, word: str) -> Any:
    """A kind's identity: its word, and for rewards and for code from outside also its source file."""
    if "." not in word and package in (kinds.STAGES, kinds.OPTIMIZERS):
        return word
    return _content(kinds.place(package, word), word)


def _code(path: str) -> Any:
    """The identity of a function from outside, `file.py:name` or dotted: its name and its source files."""
    return _content(_source.locate(path), path.partition(":")[2] if ":" in path or path.endswith(".py") else path)


def _content(place: _source.Place | None, word: str) -> Any:
    """The word with the content of its file, and of the modules beside it that it imports."""
    if place is None:
        return word
    beside = {name: file for name, file in place.files.items() if file != place.file and file.is_file()}
    modules = {name: content_hash(file) for name, file in sorted(beside.items())}
    return {"word": word, "sha256": content_hash(place.file), **({"modules": modules} if modules else {})}
