"""Model folders of a few random tensors, written by hand and compared in float64."""

import json

import torch
from safetensors.torch import load_file, save_file

from trimtab.pipelines.algorithms.weights import INDEX, SINGLE

SHARDED = "model-{:05}-of-{:05}.safetensors"


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def save(folder, tensors, shards=1):
    """A model folder with a config, in one file or in shards with an index."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"dtype": "bfloat16", "text_config": {"torch_dtype": "bfloat16"}}))
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / SINGLE, metadata={"format": "pt"})
        return folder
    weights = {}
    for shard in range(shards):
        file = SHARDED.format(shard + 1, shards)
        part = {name: tensors[name] for name in names[shard::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weights |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1, "total_parameters": 7}, "weight_map": weights}
    (folder / INDEX).write_text(json.dumps(index))
    return folder


def load(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def state(seed=0, scale=1.0):
    """Tensors of all the shapes that models have: matrices, vectors, a scalar, a stack of experts, nothing at all."""
    shapes = {"embed": (300, 17), "norm": (17,), "scale": (), "experts": (3, 5, 7), "none": (0, 4), "wide": (2, 5000)}
    return {name: random(*shape, seed=seed + i, scale=scale) for i, (name, shape) in enumerate(shapes.items())}


def moved(tensors, scale=1e-3, seed=50):
    return {name: value + random(*value.shape, seed=seed + i, scale=scale)
            for i, (name, value) in enumerate(tensors.items())}  # fmt: skip


def expected(new, previous, a):
    return {name: new[name].double() + a * (new[name].double() - previous[name].double()) for name in new}


def assert_close(found, wanted, tolerance=1e-6):
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape
        torch.testing.assert_close(found[name].double(), value.double(), rtol=tolerance, atol=tolerance)
