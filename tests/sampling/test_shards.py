"""Parts of a step's work on the disk: one that is damaged is made again, and never taken for what it was."""

from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from trimtab.pipelines.sampling import shards


def cut_off(content):
    return content[:-9]


def emptied(content):
    return b""


def flipped(content):
    """One byte of a value, which Parquet reads as another value unless it compares checksums."""
    place = content.index(b"three")
    return content[:place] + b"T" + content[place + 1 :]


@pytest.mark.parametrize("damage", [cut_off, emptied, flipped])
def test_a_damaged_part_is_made_again(damage, tmp_path, caplog):
    step = SimpleNamespace(dir=tmp_path, name="sample")
    made = []

    def make(part):
        made.append(part)
        return [{"word": ["one", "two", "three"][part]}]

    shards.compute(step, "words", 3, make)
    path = tmp_path / "parts" / "words-000002.parquet"
    path.write_bytes(damage(path.read_bytes()))
    shards.compute(step, "words", 3, make)
    assert made == [0, 1, 2, 2]
    assert f"{path} is damaged and made again: " in caplog.text
    assert shards.collect(step, "words", 3)["word"][:] == ["one", "two", "three"]
    assert pq.read_table(path, page_checksum_verification=True).num_rows == 1
