"""Model folders that are none, or broken, are refused before anything is read from them."""

import json

import pytest
from model_folders import SHARDED, random, save, state
from safetensors.torch import save_file

from trimtab.pipelines.algorithms.weights import INDEX, SINGLE, Weights


def test_an_adapter_is_no_model(tmp_path):
    (tmp_path / "adapter").mkdir()
    save_file({"a": random(3)}, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="adapter is no complete model"):
        Weights(tmp_path / "adapter")


def test_files_that_are_cut_off_or_missing(tmp_path):
    folder = save(tmp_path / "model", state(), shards=2)
    path = folder / SHARDED.format(1, 2)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match="is broken"):
        Weights(folder)
    path.unlink()
    with pytest.raises(ValueError, match="has no shard"):
        Weights(folder)


def test_an_index_that_leads_outside_of_the_folder(tmp_path):
    folder = save(tmp_path / "model", {"w": random(3)})
    (folder / SINGLE).rename(tmp_path / "elsewhere.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": {"w": "../elsewhere.safetensors"}}))
    with pytest.raises(ValueError, match="has no shard"):
        Weights(folder)
