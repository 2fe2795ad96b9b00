"""The weights of a model folder, read and written in pieces: memory is some megabytes, whatever the model's size.

They are not mapped into memory, since the pages of a mapping would count as the process's.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Pieces = Callable[[str], Iterator[torch.Tensor]]
PIECE = 1 << 17  # elements read at once: few enough to stay in a core's cache until they are written
# Not copied beside new weights: old ones, pickles, code, and what makes a folder an adapter's.
LEFT = ".safetensors .index.json .bin .pt .pth .ckpt .pkl .h5 .msgpack .onnx .gguf .py adapter_config.json".split()


class Entry(NamedTuple):
    """A tensor's place, in bytes of the file `shard`, and its shape and safetensors dtype."""

    shard: str
    start: int
    size: int
    shape: tuple[int, ...]
    dtype: str


class Weights:
    """The headers of a model folder. Raises ValueError when it holds no safetensors model, or a broken one.

    `index` is the JSON that says which shard holds which tensor, None where all are in one file.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.index: dict[str, Any] | None = None
        self.shards = [SINGLE]
        if not (self.folder / SINGLE).is_file():
            if not (self.folder / INDEX).is_file():
                raise ValueError(f"{self.folder} is no complete model: it has neither {SINGLE} nor {INDEX}")
            self.index = index = json.loads((self.folder / INDEX).read_text())
            self.shards = sorted(set(index["weight_map"].values()))
        self.tensors: dict[str, Entry] = {}  # in the order of their shards and places
        for shard in self.shards:
            self._read(shard)
        if self.index and self.tensors.keys() != self.index["weight_map"].keys():
            raise ValueError(f"{self.folder / INDEX} does not list the tensors that its shards hold")

    def _read(self, shard: str) -> None:
        path = self.folder / shard
        if Path(shard).name != shard or not path.is_file():
            raise ValueError(f"{self.folder} has no shard {shard!r}, which its index names")
        try:
            with safe_open(path, framework="pt"):  # checks the header against the file
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is broken: {error}") from error
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for name, item in sorted(header.items(), key=lambda pair: pair[1]["data_offsets"]):
            start, stop = item["data_offsets"]
            self.tensors[name] = Entry(shard, 8 + length + start, stop - start, tuple(item["shape"]), item["dtype"])

    def pieces(self, name: str) -> Iterator[torch.Tensor]:
        """The tensor as (rows, shape[-1]), whole rows at a time, about PIECE elements, in its own dtype.

        What is not in FLOATS comes as bytes (n, 1). The next piece overwrites the memory of the last.
        """
        entry = self.tensors[name]
        dtype = FLOATS.get(entry.dtype, torch.uint8)
        columns = max(1, entry.shape[-1]) if entry.dtype in FLOATS and entry.shape else 1
        buffer = torch.empty(max(1, PIECE // columns) * columns * dtype.itemsize, dtype=torch.uint8)
        with (self.folder / entry.shard).open("rb") as file:
            file.seek(entry.start)
            for offset in range(0, entry.size, len(buffer)):
                piece = buffer[: entry.size - offset]
                file.readinto(piece.numpy())
                yield piece.view(dtype).view(-1, columns)

    def same(self, name: str, other: str) -> bool:
        """Whether two matrices hold the same numbers, as one tensor under two names does."""
        a, b = self.tensors[name], self.tensors[other]
        alike = a.shape == b.shape and a.dtype == b.dtype and len(a.shape) > 1
        return alike and all(torch.equal(*pair) for pair in zip(self.pieces(name), self.pieces(other), strict=True))


@contextlib.contextmanager
def rewriting(source: Weights, out: Path, pieces: Pieces, *, widen: bool = True) -> Iterator[None]:
    """Writes a model folder like `source` with the tensors that `pieces(name)` yields, floats as float32 if `widen`.

    The files appear in `out` when the block ends; when it raises they are gone.
    """
    out.mkdir(parents=True, exist_ok=True)
    with _one_thread(), tempfile.TemporaryDirectory(dir=out, prefix=".") as temporary:
        partial = Path(temporary)
        _copy_files(source.folder, partial)
        if widen:
            _widen_config(partial / "config.json")
        total = sum(_write(source, shard, partial, pieces, widen) for shard in source.shards)
        if source.index:
            metadata = {**source.index.get("metadata", {}), "total_size": total}
            (partial / INDEX).write_text(json.dumps({**source.index, "metadata": metadata}, indent=2) + "\n")
        yield
        for path in sorted(partial.iterdir()):
            os.replace(path, out / path.name)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Threads that share so small pieces wait for each other, for long on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _copy_files(folder: Path, target: Path) -> None:
    """Everything of a model's folder that is not weights, pickles or code."""
    for path in [*folder.glob("*"), *folder.glob("additional_chat_templates/*")]:
        if path.is_file() and not path.name.endswith(tuple(LEFT)):
            copy = target / path.relative_to(folder)
            copy.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, copy)


def _widen_config(config: Path) -> None:
    """Says float32 in a model's config, in each part of a multimodal one."""
    if config.is_file():
        dtypes = {"dtype": "float32", "torch_dtype": "float32"}
        tree = json.loads(config.read_text(), object_hook=lambda part: {k: dtypes.get(k, v) for k, v in part.items()})
        config.write_text(json.dumps({**tree, "dtype": "float32"}, indent=2) + "\n")


def _write(source: Weights, shard: str, folder: Path, pieces: Pieces, widen: bool) -> int:
    header: dict[str, dict[str, Any]] = {"__metadata__": {"format": "pt"}}
    end = 0
    names = [name for name, entry in source.tensors.items() if entry.shard == shard]
    for name in names:
        entry, start = source.tensors[name], end
        wide = widen and entry.dtype in FLOATS
        end += 4 * math.prod(entry.shape) if wide else entry.size
        header[name] = {"dtype": "F32" if wide else entry.dtype, "shape": entry.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with (folder / shard).open("wb") as file:
        if hasattr(os, "posix_fallocate"):  # twice as fast, and a full disk is known at once
            os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            for piece in pieces(name):
                file.write(piece.view(torch.uint8).numpy())
        file.flush()
        os.fsync(file.fileno())
    return end
