"""Compressed data files: what becomes far more than it is, is refused before it is read, whatever its header says."""

import bz2
import gzip
import io
import json
import lzma
import time
import zipfile

import pyarrow
import pyarrow.parquet
import pytest
from planned import fingerprints
from run_steps import write_recipe

from trimtab.pipelines.data import expansion, loading
from trimtab.pipelines.data.blocks import DataEntry, DataMixture
from trimtab.pipelines.planning.errors import RecipeError

ROW = json.dumps({"text": "0" * 1000}).encode() + b"\n"
ROWS = 30_000  # 30 MB


def zipped(content):
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows.jsonl", content)
    return kept.getvalue()


def compressed(codec):
    return lambda content: pyarrow.compress(content, codec=codec, asbytes=True)


def parquet(content):
    kept = pyarrow.BufferOutputStream()
    table = pyarrow.table({"text": pyarrow.array(["0"] * 40 * ROWS)})  # in a few bytes: all rows are equal
    pyarrow.parquet.write_table(table, kept, compression="zstd")
    return kept.getvalue().to_pybytes()


PACKED = {
    "jsonl.gz": gzip.compress,
    "csv.gz": gzip.compress,
    "jsonl.bz2": bz2.compress,
    "jsonl.xz": lambda content: lzma.compress(content, preset=0),
    "jsonl.zst": compressed("zstd"),
    "jsonl": gzip.compress,  # a name that hides what it is
    "jsonl.zip": zipped,
    "parquet": parquet,
}


@pytest.fixture(scope="module")
def content():
    return ROW * ROWS


@pytest.fixture(autouse=True)
def small_limits(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(expansion, "LARGEST_FREE", 1 << 20)


@pytest.mark.parametrize(("ending", "pack"), PACKED.items(), ids=PACKED)
def test_a_file_that_becomes_far_more_is_refused(ending, pack, content, tmp_path, monkeypatch):
    file = tmp_path / f"rows.{ending}"
    file.write_bytes(pack(content))
    monkeypatch.setattr(expansion, "RATIO", 1)
    block = DataMixture(datasets=[DataEntry(path="json", data_files=str(file))])
    with pytest.raises(RecipeError, match=rf"data: .*rows.{ending} has .* MB and unpacks to .*`unpacked_gb`"):
        loading.load(block, ("data",))
    expansion.check(str(tmp_path / "*"), 0.1, ("data",))
    with pytest.raises(RecipeError, match="unpacked_gb"):
        expansion.check(str(tmp_path), 0.001, ("data",))


def test_a_header_that_lies_is_not_believed(content, tmp_path):
    """gzip's size at the end of the file says 1 byte: what is counted is what comes out."""
    packed = gzip.compress(content)
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(packed[:-4] + (1).to_bytes(4, "little"))
    for limit in (None, 0.01):
        with pytest.raises(RecipeError, match="unpacked_gb"):
            expansion.check(str(file), limit, ())


def test_what_is_counted_once_is_remembered_and_the_limit_changes_no_fingerprint(content, tmp_path):
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(content))
    expansion.check(str(file), 0.1, ())
    (memo,) = (tmp_path / "cache" / "trimtab" / "unpacked").iterdir()
    assert int(memo.read_text()) == len(content)
    started = time.perf_counter()
    expansion.check(str(file), 0.1, ())
    assert time.perf_counter() - started < 0.05
    block = {"model": {"model_name_or_path": "org/model"}, "train": {}}
    data = {"path": "json", "data_files": str(file)}
    plain = fingerprints(write_recipe(tmp_path, {"sft": {**block, "data": data}}))
    assert fingerprints(write_recipe(tmp_path, {"sft": {**block, "data": {**data, "unpacked_gb": 2}}})) == plain
