"""What is known of a step before it runs: its setting, the rows it reads, the sizes of the models it names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.audit import sources
from trimtab.pipelines.forecasting import architectures
from trimtab.pipelines.forecasting.architectures import Architecture, Head
from trimtab.pipelines.forecasting.setting import Setting
from trimtab.pipelines.forecasting.work import Held, Rows
from trimtab.pipelines.planning import adapters, hub, kinds, preflight
from trimtab.pipelines.planning.hub import is_name, is_reachable
from trimtab.pipelines.planning.recipe import Step

# billions of parameters -> width, width inside, layers, heads, heads of keys, vocabulary of a model of that size
SIZES = {
    0.14: (576, 1536, 30, 9, 3, 49152), 0.5: (896, 4864, 24, 14, 2, 151936), 1.2: (2048, 8192, 16, 32, 8, 128256),
    3.0: (2048, 11008, 36, 16, 2, 151936), 7.2: (4096, 14336, 32, 32, 8, 32000), 8.0: (4096, 14336, 32, 32, 8, 128256),
    14.0: (5120, 13824, 48, 40, 8, 152064), 32.0: (5120, 27648, 64, 40, 8, 152064),
    70.0: (8192, 28672, 80, 64, 8, 128256),
}  # fmt: skip
UNSAID = 1.2
SIZE_IN_NAME = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z])", re.IGNORECASE)
# what is raised for a configuration that cannot be had, by transformers and by the look before
UNREADABLE = (OSError, ValueError, KeyError, hub.Unreachable)


@dataclass
class Memory:
    """What was looked up for one step of a recipe and serves the others: stages, configurations, tokenizers."""

    stages: dict[Path, Any] = field(default_factory=dict)
    configs: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    tokenizers: dict[str, Any] = field(default_factory=dict)
    left: dict[tuple[Path, str, str], Rows] = field(default_factory=dict)

    def stage(self, step: Step) -> Any:
        """The step's stage as its checks build it."""
        if step.dir not in self.stages:
            self.stages[step.dir] = preflight.build(step)
        return self.stages[step.dir]


class Known:
    """What a stage asks when it says what it does. `assumed` collects what nobody could know."""

    def __init__(self, step: Step, setting: Setting, memory: Memory):
        self.step, self.setting, self.memory = step, setting, memory
        self.stage = memory.stage(step)
        self.assumed: list[str] = []

    def rows(self, key: str, block: Any = None) -> Rows:
        """The rows of the data in a field of the stage, or of one block of several in it."""
        from trimtab.pipelines.forecasting import rows

        block = getattr(self.stage, key) if block is None else block
        whole = rows.joined([self._part(key, part) for part in sources.parts(block)])
        self.assumed += whole.assumed
        return whole

    def model(self, model: Any, head: Head = "words", dtype: str | None = None) -> Architecture:
        """The sizes of a model, which a block of trl.ModelConfig or a name stands for."""
        dtype = dtype or getattr(model, "dtype", None) or "float32"
        config = self._config(self.step, model)
        if isinstance(config, str):
            config, said = _by_name(config)
            self.assumed.append(said)
        return architectures.of_config(config, head, dtype)

    def lengths(self, model: Any, most: float) -> Any:
        """The tokens that a model's answers may have, up to `most`: those of what it learned, where that is known."""
        import numpy as np

        learned = self._learned(self.step, model)
        if learned is None:
            self.assumed.append(f"{self.step.name}: answers of {most:g} tokens")
            return np.full(1, float(most))
        name, lengths = learned
        self.assumed.append(f"{self.step.name}: answers as long as those that {name} learned")
        return lengths.clip(1, most)

    def rewards(self, blocks: Mapping[str, Any]) -> list[Held]:
        """The models that rewards hold in memory, each checkpoint once."""
        named = dict(chain.from_iterable(_checkpoints(block) for block in blocks.values()))
        return [Held(self.model(name, "score", dtype), is_whole=True) for name, dtype in named.items()]

    def _learned(self, step: Step, model: Any) -> tuple[str, Any] | None:
        """The nearest step above whose answers the model has learned, and their lengths; None where there is none."""
        name = str(getattr(model, "model_name_or_path", model))
        maker = step.maker(name)
        if maker is None:
            return None
        stage, known = self.memory.stage(maker), Known(maker, self.setting, self.memory)
        if "data" in stage.reads():
            answers = known.rows("data").answers
            if answers.max() > 0 and known.rows("data").asked is not None:
                return maker.name, answers.ravel()
        source = stage.makes()
        return None if source is None or isinstance(source, Mapping) else self._learned(maker, source)

    def _part(self, key: str, part: Any) -> Rows:
        from trimtab.pipelines.forecasting import rows

        names = list(chain.from_iterable(map(loading.files, part.datasets)))
        maker = self.step.maker(names[0])
        if maker is None or maker.done:
            return self._there(key, part, ", ".join(names))
        folder, split = Path(names[0]).relative_to(maker.output).as_posix(), part.datasets[0].split
        place = (maker.dir, folder, split)
        if place not in self.memory.left:
            known = Known(maker, self.setting, self.memory)
            left = known.stage.leaves(known, "" if folder == "." else folder, split)
            self.memory.left[place] = left or rows.unknown(maker.name)
        return self.memory.left[place]

    def _there(self, key: str, part: Any, source: str) -> Rows:
        """Rows that need no other step; of those that cannot be had from here, some."""
        from trimtab.pipelines.forecasting import rows

        if is_name(source) and not is_reachable():
            return rows.unknown(source)
        form = self.stage.reads()[key.partition(".")[0]]
        return rows.of(part, form, self._tokenizer(), (*self.step.path, key))

    def _config(self, step: Step, model: Any) -> dict[str, Any] | str:
        """The configuration of a model, or of the one that a step which has still to run begins with.

        Of one that cannot be had from here, the name.
        """
        if isinstance(model, Mapping):
            return dict(model)
        name = str(getattr(model, "model_name_or_path", model))
        maker = step.maker(name)
        if maker is not None and not maker.done:
            source = self.memory.stage(maker).makes()
            return name if source is None else self._config(maker, source)
        if name not in self.memory.configs:
            self.memory.configs[name] = _read(name, getattr(model, "model_revision", None))
        return self.memory.configs[name] or name

    def _tokenizer(self) -> Any:
        """The tokenizer that reads the step's rows, None where a step above has still to make it, or there is none."""
        from trimtab.pipelines.training import inputs

        model = getattr(self.stage, "model", None)
        name = getattr(model, "model_name_or_path", None)
        if model is None or not name:
            return None
        if name not in self.memory.tokenizers:
            self.memory.tokenizers[name] = inputs.tokenizer(model, getattr(self.stage, "train", None), self.step)
        return self.memory.tokenizers[name]


def _by_name(name: str) -> tuple[dict[str, Any], str]:
    """The configuration of a model of the size that a name gives, and what is assumed thereby."""
    match = SIZE_IN_NAME.search(name)
    billions = float(match[1]) / (1 if match[2].lower() == "b" else 1000) if match else UNSAID
    nearest = min(SIZES, key=lambda size: abs(math.log(size / max(billions, 1e-3))))
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "vocab_size")  # fmt: skip
    said = f"{name}: {nearest:g} billion parameters" + (", by its name" if match else "")
    return {"model_type": "llama", **dict(zip(names, SIZES[nearest], strict=True))}, said


def _read(name: str, revision: str | None) -> dict[str, Any] | None:
    try:
        hub.require(name, ())
        from transformers import AutoConfig

        source, revision = adapters.source(name, revision, adapters.MODEL)
        return AutoConfig.from_pretrained(source, revision=revision).to_dict()
    except UNREADABLE:
        return None


def _checkpoints(block: Any) -> list[tuple[str, str]]:
    """(name, dtype) of the checkpoints at the `path` of a reward that has something to load, and of those inside."""
    if not isinstance(block, Mapping):
        return []
    inside = list(chain.from_iterable(map(_checkpoints, block.values())))
    if not isinstance(block.get("kind"), str):
        return inside
    reward = kinds.find(kinds.REWARDS, block["kind"])
    if hasattr(reward, "load") and isinstance(block.get("path"), str):
        inside.append((block["path"], block.get("dtype", "float32")))
    return inside
