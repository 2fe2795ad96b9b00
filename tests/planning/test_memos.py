"""What the libraries have said is remembered for as long as they stay the same, and asked again after."""

import pytest

from trimtab.pipelines.planning import memos


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function that answers, and counts how often it is asked."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []

    def ask():
        calls.append(1)
        return {"answer": len(calls)}

    ask.calls = calls
    return ask


def test_the_same_question_is_asked_once(asked):
    assert memos.recalled("test", ["a", 1], asked) == memos.recalled("test", ["a", 1], asked) == {"answer": 1}
    assert memos.recalled("test", ["a", 2], asked) == {"answer": 2}


def test_other_libraries_are_asked_again(asked, monkeypatch):
    memos.recalled("test", "a", asked)
    monkeypatch.setattr(memos, "_version", lambda library: "99")
    assert memos.recalled("test", "a", asked) == {"answer": 2}


def test_a_torn_memo_is_asked_for_again(asked, tmp_path):
    memos.recalled("test", "a", asked)
    (memo,) = (tmp_path / "trimtab" / "test").iterdir()
    memo.write_text("{")
    assert memos.recalled("test", "a", asked) == {"answer": 2}


def test_what_is_refused_is_not_remembered(asked):
    def refuse():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        memos.recalled("test", "a", refuse)
    assert memos.recalled("test", "a", asked) == {"answer": 1}


def test_a_cache_that_cannot_be_written_costs_time_only(asked, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert memos.recalled("test", "a", asked) == {"answer": 1}


def test_it_is_told_once_that_libraries_are_asked(asked):
    told = []
    memos.announce(told.append)
    memos.recalled("test", "a", asked)
    memos.recalled("test", "b", asked)
    assert told == [memos.COLD]
    memos.announce(told.append)
    memos.recalled("test", "a", asked)
    assert told == [memos.COLD]
