"""What a process takes from its launch."""

import gc
import os

import pytest

from trimtab.pipelines.running import environment


@pytest.mark.parametrize(
    ("variables", "is_plain"),
    [
        ({"WORLD_SIZE": "1"}, True),
        ({"WORLD_SIZE": "2"}, False),
        ({"WORLD_SIZE": "1", "ACCELERATE_USE_FSDP": "true"}, False),
    ],
)
def test_a_launch_of_one_rank_is_a_plain_process(variables, is_plain, monkeypatch):
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", **variables}.items():
        monkeypatch.setenv(name, value)
    environment.be_plain_where_alone()
    assert ("LOCAL_RANK" not in os.environ) == is_plain


def test_the_collector_looks_at_no_library_a_second_time():
    environment.spare_libraries()
    spared = gc.get_freeze_count()
    imported_later = [[number] for number in range(1000)]
    environment.spare_libraries()
    assert gc.get_freeze_count() > spared + len(imported_later) / 2
