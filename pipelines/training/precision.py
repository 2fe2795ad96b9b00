"""The dtype in which a trained model is kept."""

from __future__ import annotations

import json
from pathlib import Path

from trimtab.pipelines.algorithms.weights import INDEX


def cast(folder: Path, dtype: str) -> None:
    """Writes the floats of a model folder anew in a torch dtype, one shard in memory at a time."""
    import torch
    from safetensors.torch import load_file, save_file

    total = 0
    for shard in sorted(folder.glob("*.safetensors")):
        tensors = load_file(shard)
        for name, value in tensors.items():
            if value.is_floating_point():
                tensors[name] = value.to(getattr(torch, dtype))
        save_file(tensors, shard, metadata={"format": "pt"})
        total += sum(value.nbytes for value in tensors.values())
    say(folder / "config.json", dtype=dtype)
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text())
        say(folder / INDEX, metadata={**index.get("metadata", {}), "total_size": total})


def say(file: Path, **values: object) -> None:
    """Sets keys of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}, indent=2) + "\n")
