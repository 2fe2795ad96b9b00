"""What a shrunk run puts in the place of models, data, training arguments and rewards, by the types of the fields."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trl

from trimtab.pipelines.data.forms import Form, makers
from trimtab.pipelines.planning import batch, field_types, kinds, optimizer_blocks
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import ConstrainedReward, RewardBlock, WeightedReward, cut
from trimtab.pipelines.sampling.settings import Sampling
from trimtab.pipelines.shrinking import models

LENGTH = 1024  # tokens: whole texts, in the few that a tiny vocabulary knows
GENERATED = 8  # tokens
GENERATIONS = 3  # completions of a prompt, at most
TRAIN = {
    "max_steps": 2,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "logging_steps": 1,
    "save_steps": 1,
    "warmup_steps": 0,
    "bf16": False,
    "fp16": False,
    "tf32": None,
    "gradient_checkpointing": False,
}
TOKENS = {"eos_token": None, "pad_token": None, "chat_template_path": None}  # of the vocabulary that is not there
GROUPS = {
    "num_generations": 2,
    "max_completion_length": GENERATED,
    "generation_batch_size": None,
    "use_vllm": False,
}
ARGUMENTS = TRAIN | TOKENS | GROUPS
REWARD_BLOCKS = (RewardBlock, ConstrainedReward, WeightedReward)
MODEL = {"dtype": "float32", "attn_implementation": None, "load_in_4bit": False}
QUESTIONS = (
    "What is 2 + 2?",
    "Name a colour.",
    "Say hello.",
    "Where does rain come from?",
    "What do cats eat?",
    "Count to three.",
    "Why is the sky blue?",
    "Tell me a story.",
)


@dataclass(frozen=True)
class Miniature:
    """Makes what is small, in `folder`. `stages` are the names of the recipe's stages: what they leave is small."""

    folder: Path
    stages: frozenset[str]

    def changes(self, cls: type, block: Mapping[str, Any]) -> dict[str, Any]:
        """`key.subkey` -> value of what changes in a block of the stage class `cls`, by the types of its fields."""
        changes: dict[str, Any] = {}
        with field_types.imported():
            types_of = field_types.hints(cls)
        for key, hint in types_of.items():
            if _is_arguments(hint):
                changes |= self._arguments(key, block.get(key) or {}, _types(hint))
            elif block.get(key) is not None:
                changes |= self._field(key, hint, block[key])
        word = optimizer_blocks.word_of(block.get(optimizer_blocks.KEY))
        if word in kinds.words(kinds.OPTIMIZERS):
            small = getattr(kinds.find(kinds.OPTIMIZERS, word), "small", {})
            changes |= {f"{optimizer_blocks.KEY}.{key}": value for key, value in small.items()}
        if issubclass(cls, Sampling):
            changes |= self._sampling(block)
        if field_types.trains(cls):  # the small sizes come to a batch
            changes |= {key: None for key in batch.KEYS if block.get(key) is not None}
        return changes

    def rows(self, form: Form) -> str:
        """The path of a file with a few rows of a form. Raises RecipeError where only a stage makes such rows."""
        if form.example is None:
            stages = " or ".join(makers(form)) or "a stage"
            raise RecipeError(f"--shrink makes no rows of {form.name}: they are what {stages} leaves")
        rows = [form.example(question, number) for number, question in enumerate(QUESTIONS)]
        path = self.folder / "rows" / f"{form.name.replace(' ', '-')}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def _data(self, form: Form, value: Any) -> Any:
        """A data block with a few rows of a form, half of them held out where some of the block's own are."""
        is_split = isinstance(value, Mapping) and "eval_fraction" in value
        sides = {key: value[key] for key in ("side",) if key in value} if is_split else {}
        return {"path": self.rows(form), "eval_fraction": 0.5, **sides} if is_split else self.rows(form)

    def model(self, name: str, *, scores: bool = False) -> str:
        """The folder of a tiny random model of the family that `name` belongs to; with `scores` a reward model."""
        return models.tiny(name, self.folder / "models", scores=scores)

    def is_inside(self, value: Any) -> bool:
        """Whether a value of the recipe is (in) the artifact of one of its stages."""
        if isinstance(value, Mapping):
            of_block = value.get("path", value.get("datasets"))
            value = list(value.values()) if of_block is None else of_block  # several blocks by name
        if isinstance(value, list):
            return all(self.is_inside(item) for item in value)
        if not isinstance(value, str) or not value.startswith("$"):
            return False
        name = value[1:].split("/")[0]
        return any(name == stage or name.startswith(f"{stage}-") for stage in self.stages)

    def _field(self, key: str, hint: Any, value: Any) -> dict[str, Any]:
        types, forms = _types(hint), [note for note in field_types.notes(hint) if isinstance(note, Form)]
        if forms:
            return {} if self.is_inside(value) else {key: self._data(forms[0], value)}
        if trl.ModelConfig in types:
            return self._model(key, value)
        if not types.isdisjoint(REWARD_BLOCKS):
            return self._rewards(key, value)
        if any(isinstance(note, field_types.NamesModel) for note in field_types.notes(hint)):
            return self._named_models(key, value)
        if isinstance(value, Mapping):
            small: dict[str, Any] = {}
            for settings in types:
                small |= {f"{key}.{name}": option for name, option in getattr(settings, "small", {}).items()}
            return small | self._stage_keys(key, hint, value)
        return {}

    def _arguments(self, key: str, value: Mapping[str, Any], types: set[Any]) -> dict[str, Any]:
        changes = {f"{key}.{name}": ARGUMENTS[name] for name in value if name in ARGUMENTS}
        if any("max_length" in getattr(kind, "__dataclass_fields__", {}) for kind in types):
            changes[f"{key}.max_length"] = LENGTH  # GRPO knows no such key
        return changes

    def _model(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        name = value.get("model_name_or_path")
        changes = {f"{key}.{option}": small for option, small in MODEL.items() if option in value}
        if name and not self.is_inside(name):
            changes[f"{key}.model_name_or_path"] = self.model(name)
        return changes

    def _named_models(self, key: str, value: Any) -> dict[str, Any]:
        named = value.items() if isinstance(value, Mapping) else [("", value)]
        outside = {name: model for name, model in named if isinstance(model, str) and not self.is_inside(model)}
        return {f"{key}.{name}".rstrip("."): self.model(model) for name, model in outside.items()}

    def _stage_keys(self, key: str, hint: Any, value: Mapping[str, Any]) -> dict[str, Any]:
        """Of a macro's block, or blocks by name, that take the keys of another kind: what that kind changes."""
        notes = [note for note in field_types.notes(hint) if isinstance(note, field_types.KeysOf)]
        is_one = any(isinstance(note, field_types.KeysOf) for note in getattr(hint, "__metadata__", ()))
        blocks = {key: value} if is_one else {f"{key}.{name}": block for name, block in value.items()}
        changes: dict[str, Any] = {}
        for kind in notes[0].names if notes else ():
            stage = kinds.find(kinds.STAGES, kind)
            for place, block in blocks.items():
                changes |= {f"{place}.{name}": small for name, small in stage.small(block, self).items()}
        return changes

    def _sampling(self, block: Mapping[str, Any]) -> dict[str, Any]:
        changes: dict[str, Any] = {"generate.max_new_tokens": GENERATED}
        if block.get("engine"):  # vLLM has no kernels for models this small, and nobody serves them
            changes["engine"] = "transformers"
        changes |= {key: None for key in ("server", "ray") if block.get(key)}
        if (block.get("num_generations") or GENERATIONS + 1) > GENERATIONS:
            changes["num_generations"] = GENERATIONS
        return changes

    def _rewards(self, key: str, value: Mapping[str, Any]) -> dict[str, Any]:
        if "kind" in value:
            return {key: self.reward(value)}
        small = {name: self.reward(block) for name, block in value.items()}
        return {f"{key}.{name}": block for name, block in small.items() if block != value[name]}

    def reward(self, block: Any) -> Any:
        """A reward's block with what is outside this machine replaced, also inside composites.

        What that is says the reward's class, in a static method `small(block, miniature)`.
        """
        if not isinstance(block, Mapping):
            return block
        parts = cut(block, constrained=True)
        changed = {key: self.reward(value) for key, value in parts.reward.items()}
        if isinstance(block.get("kind"), str):
            small = getattr(kinds.find(kinds.REWARDS, block["kind"]), "small", None)
            changed = small(changed, self) if small else changed
        constraint, threshold = parts.constraint, parts.constraint.get("threshold")
        if changed != parts.reward and isinstance(threshold, Mapping) and "of" not in threshold:
            constraint = {**constraint, "threshold": threshold["z"]}  # what stands in its place is not calibrated
        return {**changed, **parts.policy, **constraint}


def _is_arguments(hint: Any) -> bool:
    return any(map(field_types.is_training_arguments, _types(hint)))


def _types(hint: Any) -> set[Any]:
    """The types that an annotation is made of, reward blocks and the classes of KeysOf among them."""
    if hint in REWARD_BLOCKS or dataclasses.is_dataclass(hint):
        return {hint}
    handed_on = [note.types for note in field_types.notes(hint) if isinstance(note, field_types.KeysOf)]
    inside = [_types(argument) for argument in typing.get_args(hint) if not isinstance(argument, str)]
    return set().union(*handed_on, *inside)
