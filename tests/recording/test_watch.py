"""What a process is ended for: that nothing moves, and never that something takes long."""

import time

import pytest

from trimtab.pipelines.recording import watch


@pytest.fixture
def ended(monkeypatch):
    """The exit codes that a process would have ended with, with a deadline of 0.8 seconds."""
    codes = []
    monkeypatch.setattr(watch.os, "_exit", codes.append)
    monkeypatch.setenv("TRIMTAB_STALL", "0.8")
    return codes


def test_a_part_that_stands_still_ends_the_process(ended, capfd):
    watch.enter("evaluate-sample")
    with watch.part("in batch 3"):
        time.sleep(1)
    assert ended == [watch.STALLED]
    told = capfd.readouterr().err
    assert "error: evaluate-sample: rank 0 has stood still for 0.8 s in batch 3; its threads:" in told
    assert "test_watch.py" in told


def test_one_that_moves_may_take_its_time_also_around_another_one(ended):
    with watch.part("in batch 3"), watch.part("in the log-probabilities of 2 of 2 completions"):
        for _ in range(10):
            time.sleep(0.1)
            watch.moved()
    assert ended == []
    watch.moved()  # where nothing is watched


def test_0_is_never(ended, monkeypatch):
    monkeypatch.setenv("TRIMTAB_STALL", "0")
    with watch.part("in batch 3"):
        time.sleep(0.5)
    assert ended == []
