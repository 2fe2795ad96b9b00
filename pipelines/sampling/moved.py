"""A policy of which a few numbers are moved, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trl

if TYPE_CHECKING:
    import numpy as np


class Moved:
    """What a search moves: a vector that begins at `start`, and the policy that it stands for.

    `names` are those of its numbers, where there are few enough to be looked at.
    """

    names: list[str]
    start: np.ndarray

    def __init__(self, model: trl.ModelConfig):
        from trimtab.pipelines.sampling import transformers_engine

        self.model = model
        self.policy = transformers_engine.load(model)

    def at(self, vector: np.ndarray) -> Any:
        """The policy of a vector: always the same one, in place."""
        raise NotImplementedError

    def drawing(self, vector: np.ndarray) -> dict[str, Any]:
        """The keys of `generate` that the vector says."""
        return {}

    def choosing(self, vector: np.ndarray) -> Mapping[str, float] | None:
        """The weights of rewards by which one of a prompt's answers is taken; None where all of them count."""
        return None

    def values(self, vector: np.ndarray) -> dict[str, float]:
        """The numbers that the vector stands for, by name."""
        return dict(zip(self.names, vector.tolist(), strict=True))

    def save(self, vector: np.ndarray, folder: Path) -> None:
        """Writes the complete model of a vector, in the model's dtype, and its tokenizer."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name, revision = self.model.model_name_or_path, self.model.model_revision
        written = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype="auto")
        written.load_state_dict(
            dict(self.at(vector).named_parameters()), strict=False
        )  # tied weights stand there once
        for key, value in self.drawing(vector).items():
            setattr(written.generation_config, key, value)
        if self.drawing(vector):
            written.generation_config.do_sample = True
        written.save_pretrained(folder)
        AutoTokenizer.from_pretrained(name, revision=revision).save_pretrained(folder)
