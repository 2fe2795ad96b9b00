"""A dataset is opened again only when its files have changed."""

import json

import pytest
import trl

from trimtab.pipelines.data import opened
from trimtab.pipelines.data.blocks import DataEntry


@pytest.fixture
def opens(monkeypatch):
    """The entries that were opened, one after the other."""
    monkeypatch.setattr(opened, "_opened", type(opened._opened)())
    seen, open_rows = [], trl.get_dataset

    def counted(mixture):
        seen.extend(mixture.datasets)
        return open_rows(mixture)

    monkeypatch.setattr(trl, "get_dataset", counted)
    return seen


def write(path, *texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_the_same_files_are_opened_once(tmp_path, opens):
    write(tmp_path / "train.jsonl", "a", "b")
    entry = DataEntry(path=str(tmp_path))
    for _ in range(3):
        assert opened.rows(entry, [entry.path])["text"] == ["a", "b"]
    assert len(opens) == 1


def test_files_that_have_changed_are_read_as_they_are(tmp_path, opens):
    write(tmp_path / "train.jsonl", "a")
    entry = DataEntry(path=str(tmp_path))
    assert opened.rows(entry, [entry.path])["text"] == ["a"]
    write(tmp_path / "train.jsonl", "b")
    assert opened.rows(entry, [entry.path])["text"] == ["b"]
    write(tmp_path / "train-more.jsonl", "c")
    assert sorted(opened.rows(entry, [entry.path])["text"]) == ["b", "c"]
    assert len(opens) == 3


def test_each_split_is_its_own(tmp_path, opens):
    write(tmp_path / "train.jsonl", "a")
    write(tmp_path / "test.jsonl", "b")
    sides = [DataEntry(path=str(tmp_path), split=split) for split in ("train", "test")]
    assert [opened.rows(entry, [entry.path])["text"] for entry in sides] == [["a"], ["b"]]


def test_no_more_are_kept_than_a_run_reads_again(tmp_path, opens, monkeypatch):
    monkeypatch.setattr(opened, "KEPT", 1)
    for name in ("a", "b", "a"):
        write(tmp_path / f"{name}.jsonl", name)
        path = str(tmp_path / f"{name}.jsonl")
        opened.rows(DataEntry(path="json", data_files=path), [path])
    assert len(opened._opened) == 1
