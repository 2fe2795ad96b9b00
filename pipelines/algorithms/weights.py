"""Momentum on the weights of models: theta = new + a (new - previous), tensor by tensor, on folders of safetensors.

See pipelines/algorithms/momentum.py for what it is good for. Weights are read in pieces: pages of a mapping would
count as the process's memory.
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
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
Pieces = Callable[[str], Iterator[torch.Tensor]]
PIECE = 1 << 17  # elements read at once: few enough to stay in a core's cache until they are written
# Not copied beside new weights: old ones, pickles, code, and the mark of an adapter.
LEFT = ".safetensors .index.json .bin .pt .pth .ckpt .pkl .h5 .msgpack .onnx .gguf .py adapter_config.json".split()


class Entry(NamedTuple):
    """A tensor's place, in bytes of the file `shard`, and its shape and safetensors dtype."""

    shard: str
    start: int
    size: int
    shape: tuple[int, ...]
    dtype: str


class Weights:
    """The headers of a model folder. Raises ValueError when it holds no safetensors model, or a broken one."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        single = (self.folder / SINGLE).is_file()
        if not single and not (self.folder / INDEX).is_file():
            raise ValueError(f"{self.folder} is no complete model: it has neither {SINGLE} nor {INDEX}")
        self.index = None if single else json.loads((self.folder / INDEX).read_text())
        self.shards = [SINGLE] if single else sorted(set(self.index["weight_map"].values()))
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
            for at in range(0, entry.size, len(buffer)):
                piece = buffer[: entry.size - at]
                file.readinto(piece.numpy())
                yield piece.view(dtype).view(-1, columns)

    def same(self, name: str, other: str) -> bool:
        """Whether two matrices hold the same numbers, as one tensor under two names does."""
        a, b = self.tensors[name], self.tensors[other]
        alike = a.shape == b.shape and a.dtype == b.dtype and len(a.shape) > 1
        return alike and all(torch.equal(*pair) for pair in zip(self.pieces(name), self.pieces(other), strict=True))


def match(new: Weights, previous: Weights) -> dict[str, str]:
    """The name in `previous` of every tensor of `new`.

    Of tied weights a folder holds one name or both. So a name that only one folder has is no mistake when its matrix
    equals another one there that both have. Raises ValueError for other missing names, for shapes and for kinds.
    """
    names = {name: name for name in new.tensors if name in previous.tensors}
    for one, other in ((previous, new), (new, previous)):
        only = [name for name in one.tensors if name not in other.tensors]
        twins = {name: next((twin for twin in names if one.same(name, twin)), None) for name in only}
        if missing := [name for name in only if twins[name] is None]:
            raise ValueError(f"{other.folder} lacks {len(missing)} tensors of {one.folder}: {', '.join(missing[:3])}")
    names |= twins
    for name, twin in names.items():
        a, b = new.tensors[name], previous.tensors[twin]
        if a.shape != b.shape or not (a.dtype == b.dtype or {a.dtype, b.dtype} <= FLOATS.keys()):
            raise ValueError(
                f"{name} is {a.dtype} {a.shape} in {new.folder}, {b.dtype} {b.shape} in {previous.folder}"
            )
    return names


def extrapolate(new: Path, previous: Path, out: Path, momentum: float) -> dict[str, float]:
    """Writes new + momentum (new - previous) into the folder `out`, in float32, with everything else as in `new`.

    Momentum 0 copies `new` bit by bit. Memory is some megabytes, whatever the model's size.
    Returns step_norm = ||new - previous||, weight_norm = ||new||, relative_step (their quotient) and tensors (number).
    Raises ValueError, and leaves nothing, where the models do not match (see `match`), a weight is not finite, tensors
    differ that are no floats, and where the step drowns in the rounding of a 16-bit `new`.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
    ours, theirs = Weights(new), Weights(previous)
    names = match(ours, theirs)
    step = size = coarse = noise = 0.0  # squared norms; `coarse` is the step of the 16-bit tensors

    def pieces(name: str) -> Iterator[torch.Tensor]:
        nonlocal step, size, coarse, noise
        kinds = [FLOATS.get(entry.dtype) for entry in (ours.tensors[name], theirs.tensors[names[name]])]
        moved = length = 0.0
        for piece, other in zip(ours.pieces(name), theirs.pieces(names[name]), strict=True):
            if kinds[0] is None:
                if not torch.equal(piece, other):
                    raise ValueError(f"{name} is {ours.tensors[name].dtype} and differs: only floats are extrapolated")
                yield piece
                continue
            values = piece.float()
            length += _square(values, name, new)
            back = other.float().sub_(values)
            moved += _square(back, name, previous)
            yield values.sub_(back, alpha=momentum) if momentum else piece
        step, size = step + moved, size + length
        # Rounding to floats that lie u apart adds an error of variance u^2 / 12; u^2 is 0.54 (eps x)^2 on average over
        # mantissas even in the logarithm. A float32 `new` was trained from a 16-bit `previous`: that step is exact.
        if moved and kinds[0].itemsize == 2:
            coarse += moved
            noise += sum(0.54 / 12 * torch.finfo(kind).eps ** 2 * length for kind in kinds if kind.itemsize == 2)

    with rewriting(ours, Path(out), pieces, widen=momentum > 0):
        if momentum and coarse < 2 * noise:  # the measured step^2 is true^2 + noise^2, and the true must prevail
            raise ValueError(
                f"the step from {previous} to {new} measures {math.sqrt(coarse):.3g}, and rounding to 16 bits makes "
                f"{math.sqrt(noise):.3g} of it: train and save in float32 (`model: {{dtype: float32}}`)"
            )
    norms = {"step_norm": math.sqrt(step), "weight_norm": math.sqrt(size)}
    return {**norms, "relative_step": math.sqrt(step / size) if size else 0.0, "tensors": len(names)}


def _square(values: torch.Tensor, name: str, folder: Path) -> float:
    total = torch.dot(values.view(-1), values.view(-1)).item()
    if not math.isfinite(total) and not values.isfinite().all():  # the first is cheap, and looks at every number
        raise ValueError(f"{name} in {folder} is not finite everywhere")
    return total if math.isfinite(total) else values.double().square().sum().item()


@contextlib.contextmanager
def rewriting(source: Weights, out: Path, pieces: Pieces, *, widen: bool = True) -> Iterator[None]:
    """Writes a model folder like `source` with the tensors that `pieces(name)` yields, floats as float32 if `widen`.

    The files appear in `out` when the block ends; when it raises they are gone.
    """
    out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)  # threads that share so small pieces wait for each other, for long on a busy machine
        partial = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out, prefix=".")))
        for path in [*source.folder.glob("*"), *source.folder.glob("additional_chat_templates/*")]:
            if path.is_file() and not path.name.endswith(tuple(LEFT)):
                copy = partial / path.relative_to(source.folder)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
        config, kinds = partial / "config.json", {"dtype": "float32", "torch_dtype": "float32"}
        if widen and config.is_file():  # a multimodal one has a dtype in each part
            tree = json.loads(config.read_text(), object_hook=lambda d: {k: kinds.get(k, v) for k, v in d.items()})
            config.write_text(json.dumps({**tree, "dtype": "float32"}, indent=2) + "\n")
        total = sum(_write(source, shard, partial, pieces, widen) for shard in source.shards)
        if source.index:
            metadata = {**source.index.get("metadata", {}), "total_size": total}
            (partial / INDEX).write_text(json.dumps({**source.index, "metadata": metadata}, indent=2) + "\n")
        yield
        for path in sorted(partial.iterdir()):
            os.replace(path, out / path.name)


def _write(source: Weights, shard: str, folder: Path, pieces: Pieces, widen: bool) -> int:
    header, end = {"__metadata__": {"format": "pt"}}, 0
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
