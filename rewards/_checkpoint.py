"""A sequence-classification checkpoint in memory, shared by all rewards that name it: one load, one forward pass."""

from __future__ import annotations

import gc
import hashlib
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import PartialState

from trimtab.rewards._arithmetic import exact, rounded
from trimtab.rewards._forward import Forward

REMEMBERED = 1 << 20  # logits kept for a second reward that asks for another head
SHARE = 0.05  # of a device's memory that checkpoints may take which no reward holds
_open: weakref.WeakValueDictionary[tuple, Checkpoint] = weakref.WeakValueDictionary()
_kept: dict[tuple, Checkpoint] = {}
_wanted: set[str] = set()


def share(path: str, revision: str, dtype: str, device: str | None) -> Checkpoint:
    """The checkpoint, loaded at first use and kept as long as a reward holds it, or longer (see `keep`)."""
    key = (path, revision, dtype, device)
    checkpoint = _open.get(key)
    if checkpoint is None or checkpoint.files != _files(path):
        _kept.pop(key, None)
        checkpoint = _open[key] = Checkpoint(*key)
    if path in _wanted and checkpoint.files and _has_room(key, checkpoint):
        _kept[key] = checkpoint
    return checkpoint


def keep(paths: Collection[str]) -> None:
    """From now on the models in these folders stay in memory, as far as they are small.

    Others leave it with their rewards. Whoever asks for one later gets it as long as its files are those that it was
    loaded from.
    """
    _wanted.clear()
    _wanted.update(paths)
    unwanted = [key for key in _kept if key[0] not in _wanted]
    for key in unwanted:
        del _kept[key]
    if unwanted:  # a collection sees nothing that was frozen
        gc.unfreeze()
        gc.collect()


class Checkpoint:
    """Model and tokenizer. Raises ValueError for a checkpoint without a trained head.

    A folder or repository with an `adapter_config.json` is loaded as LoRA on its base model, with the adapter's head.
    """

    def __init__(self, path: str, revision: str, dtype: str, device: str | None):
        self.path, self.revision = path, revision
        self.files = _files(path)
        model, self.tokenizer = self._adapted(dtype) if _has_adapter(path, revision) else self._whole(dtype)
        config = model.config.get_text_config()
        if config.pad_token_id is None:  # or the last token could not be found
            config.pad_token_id = self.tokenizer.pad_token_id
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
            config.pad_token_id = self.tokenizer.pad_token_id
        place = torch.device(device or PartialState().device)
        exact(getattr(model, "score", None), place)
        self.model = rounded(model, place).to(place).eval()
        self.heads: int = model.config.num_labels
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self._remembered: OrderedDict[bytes, list[list[float]]] = OrderedDict()
        self._forward = Forward(self.model)

    def logits(self, rows: Sequence[Sequence[int]], tokens_per_batch: int | None) -> list[list[float]]:
        """All heads' outputs at the last token of every row of token ids: len(rows) x heads.

        The same rows asked for again (by a reward with another head) cost nothing.
        """
        tokens_per_batch = tokens_per_batch or (2048 if self.model.device.type == "cpu" else 16384)
        key = hashlib.blake2b(repr([array("i", row).tobytes() for row in rows]).encode(), digest_size=16).digest()
        if key not in self._remembered:
            self._remembered[key] = self._forward(rows, tokens_per_batch)
            while len(self._remembered) > 1 and self.heads * sum(map(len, self._remembered.values())) > REMEMBERED:
                self._remembered.popitem(last=False)
        return self._remembered[key]

    def features(self, rows: Sequence[Sequence[int]], tokens_per_batch: int | None) -> list[list[float]]:
        """What the heads read at the last token of every row of token ids: len(rows) x hidden size.

        Raises ValueError for an architecture whose head is more than one layer.
        """
        head = getattr(self.model, "score", None)
        if head is None:
            raise ValueError(f"{self.path}: the head of {type(self.model).__name__} is no layer called `score`")
        tokens_per_batch = tokens_per_batch or (2048 if self.model.device.type == "cpu" else 16384)
        self.model.score = torch.nn.Identity()
        try:
            return self._forward(rows, tokens_per_batch)
        finally:
            self.model.score = head

    def _whole(self, dtype: str) -> tuple[Any, Any]:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model, report = AutoModelForSequenceClassification.from_pretrained(
            self.path, revision=self.revision, dtype=getattr(torch, dtype), output_loading_info=True
        )
        self._require_head(sorted(report["missing_keys"]))
        return model, AutoTokenizer.from_pretrained(self.path, revision=self.revision)

    def _adapted(self, dtype: str) -> tuple[Any, Any]:
        from peft import PeftConfig, PeftModel, load_peft_weights
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        base = PeftConfig.from_pretrained(self.path, revision=self.revision)
        saved = load_peft_weights(self.path, revision=self.revision, device="cpu")
        heads = [tensor.shape[0] for name, tensor in saved.items() if name.endswith("score.weight")]
        sizes = {"num_labels": heads[0]} if heads else {}
        model, report = AutoModelForSequenceClassification.from_pretrained(
            base.base_model_name_or_path,
            revision=base.revision,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **sizes,
        )
        random = set(report["missing_keys"]) | {key for key, *_ in report["mismatched_keys"]}
        self._require_head(sorted(key for key in random if not any(name.endswith(key) for name in saved)))
        model = PeftModel.from_pretrained(model, self.path, revision=self.revision).merge_and_unload()
        try:
            tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
        except (OSError, ValueError):
            tokenizer = AutoTokenizer.from_pretrained(base.base_model_name_or_path, revision=base.revision)
        return model, tokenizer

    def _require_head(self, missing: Sequence[str]) -> None:
        if missing:
            raise ValueError(
                f"{self.path} has no trained head ({', '.join(missing)} would be random): "
                "give a sequence-classification checkpoint, such as the artifact of a `reward` stage"
            )


def _files(path: str) -> tuple:
    """What a model in a folder would not keep if it became another; nothing of one that is not whole in a folder."""
    folder = Path(path)
    if not folder.is_dir() or _has_adapter(path, ""):
        return ()
    states = ((file.name, file.stat()) for file in sorted(folder.iterdir()))
    return tuple((name, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns) for name, state in states)


def _has_room(key: tuple, checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint may be kept beside the others that are."""
    device = checkpoint.model.device
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = psutil.virtual_memory().total // PartialState().num_processes
    kept = {**_kept, key: checkpoint}.values()
    taken = sum(weight.nbytes for one in kept for weight in one.model.parameters())
    return taken <= SHARE * memory


def _has_adapter(path: str, revision: str) -> bool:
    if Path(path).is_dir():
        return (Path(path) / "adapter_config.json").exists()
    from transformers.utils import cached_file

    config = cached_file(
        path,
        "adapter_config.json",
        revision=revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )
    return config is not None
