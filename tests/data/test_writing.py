"""Rows on their way into an artifact: the same file as from all rows at once, a group at a time."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from datasets import Dataset, load_dataset

from trimtab.pipelines.data import writing
from trimtab.pipelines.planning.errors import RecipeError


@pytest.fixture
def step(tmp_path):
    return SimpleNamespace(name="pair", path=("stages", "pair"), output=tmp_path)


@pytest.fixture
def small(monkeypatch):
    """Two rows a batch, and a row group for each."""
    monkeypatch.setattr(writing, "BATCH", 2)
    monkeypatch.setattr(writing, "GROUP", 1)


MESSAGES = [{"role": "user", "content": "c"}]
CALLS = [{"role": "assistant", "content": None, "tool_calls": [{"x": 1}]}]


def at_once(rows, path):
    table = Dataset.from_list(rows, on_mixed_types="use_json")
    pq.write_table(table.with_format("arrow")[:], path)
    return table


def test_few_rows_are_the_same_bytes(step, tmp_path):
    rows = [{"prompt": MESSAGES, "n": n, "score": n / 2, "none": None} for n in range(3 * writing.BATCH)]
    at_once(rows, tmp_path / "at_once.parquet")
    assert writing.write_rows(step, iter(rows)) == len(rows)
    written = (tmp_path / "train.parquet").read_bytes()
    assert written == (tmp_path / "at_once.parquet").read_bytes()
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    writing.write_rows(step, load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train"))
    assert written == (tmp_path / "train.parquet").read_bytes()


@pytest.mark.parametrize(
    "column",
    [
        [None, None, None, "text", None],
        [1, 2, 3, 4, 5.5],
        [MESSAGES, MESSAGES, [], CALLS, MESSAGES],
        [{"a": 1}, {"a": None}, {"a": 1.5}, None, {"a": 2}],
        [{"a": 1}, {"a": 2}, {"b": "x"}, {"a": 1}, {"a": {"c": 1}}],
        [[], [], [1, 2], [None], None],
        ["1", "2", "3", 4, True],
    ],
)
def test_batches_have_the_types_that_all_rows_have_together(column, step, small, tmp_path):
    rows = [{"n": n, "value": value} for n, value in enumerate(column)]
    whole = at_once(rows, tmp_path / "whole.parquet")
    writing.write_rows(step, rows)
    written = load_dataset("parquet", data_files=str(tmp_path / "train.parquet"), split="train")
    assert written.features == whole.features
    assert list(written) == list(whole)
    assert pq.read_metadata(tmp_path / "train.parquet").num_row_groups == 3
    assert {path.name for path in tmp_path.glob("*.earlier")} == set()


def test_no_rows_are_no_artifact(step):
    with pytest.raises(RecipeError, match="pair leaves no rows"):
        writing.write_rows(step, iter([]))
