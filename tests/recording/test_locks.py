"""A lock names its holder, outlives nobody, and is told where a file system has none."""

import errno
import fcntl
import os
import threading

import pytest

from trimtab.pipelines.recording import locks
from trimtab.pipelines.recording.locks import Lock, held, holder


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(locks, "PAUSE", 0)
    monkeypatch.setattr(locks, "POLL", 0.01)


def test_a_lock_that_is_held_names_its_holder(tmp_path):
    first, second = Lock(tmp_path / "a" / "lock", "mine/sft"), Lock(tmp_path / "a" / "lock", "other/sft")
    assert holder(first.path) is None
    assert first.take() is None
    assert second.take().startswith(f"process {os.getpid()} on ")
    assert holder(first.path).endswith(": mine/sft")
    first.release()
    assert holder(first.path) is None
    assert second.take() is None


def test_what_a_dead_holder_has_written_holds_nothing(tmp_path):
    (tmp_path / "lock").write_text("process 1 on nowhere, since then: gone")
    assert holder(tmp_path / "lock") is None
    lock = Lock(tmp_path / "lock", "mine")
    assert lock.take() is None
    assert holder(tmp_path / "lock").endswith("mine")


def test_a_second_waits_says_for_whom_and_goes_on(tmp_path):
    first, told = Lock(tmp_path / "lock", "first"), []
    first.take()

    def tell(who):
        told.append(who)
        threading.Timer(0.05, first.release).start()

    with held(Lock(tmp_path / "lock", "second"), tell):
        assert first.file is None
        assert holder(tmp_path / "lock").endswith("second")
    (who,) = told
    assert who.endswith("first")


def test_a_file_system_without_locks_is_told_and_gone_on(tmp_path, monkeypatch, caplog):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert Lock(tmp_path / "lock", "mine").take() is None
    assert "two processes must not make the same step at once" in caplog.text
