"""Processes that answer questions: in order, replaced when they die, and never waited for beyond the deadline."""

import os
from pathlib import Path

import pytest

from trimtab.rewards._workers import Ended, Workers

ECHO = """
import json, os, sys, time
print("ready", flush=True)
for line in sys.stdin:
    question = json.loads(line)
    if question == "die":
        os._exit(3)
    if question == "sleep":
        time.sleep(60)
    print(json.dumps([question, os.getpid()]), flush=True)
"""


@pytest.fixture
def workers(tmp_path):
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    return Workers(script, count=1)


def test_one_that_dies_is_replaced_and_the_others_are_kept(workers):
    first, second, died, fourth = workers.ask(["a", "b" * 100_000, "die", "d"], deadline=60)
    assert first[0] == "a"
    assert second == ["b" * 100_000, first[1]]
    assert isinstance(died, Ended)
    assert died.code == 3
    assert fourth[0] == "d"
    assert fourth[1] != first[1]
    assert workers.ask(["e"], deadline=60) == [["e", fourth[1]]]


def test_those_that_have_died_hold_no_files_open(workers):
    """Their errors are kept until all questions of a batch are answered, and may be many."""

    def opened():
        """By what they are: a number that is closed is given again."""
        return {os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.exists()}

    before = opened()
    answers = workers.ask(["die"] * 3, deadline=60)
    assert all(isinstance(answer, Ended) for answer in answers)
    assert opened() - before == set()  # what other tests have left may be closed meanwhile


def test_one_that_does_not_answer_in_time_is_given_up(workers):
    [late] = workers.ask(["sleep"], deadline=0.05)
    assert isinstance(late, TimeoutError)
    assert workers.ask(["a"], deadline=60)[0][0] == "a"


def test_one_that_does_not_start_says_so(tmp_path):
    script = tmp_path / "broken.py"
    script.write_text("raise SystemExit(7)")
    with pytest.raises(RuntimeError, match=r"broken.py did not start: its process ended with code 7"):
        Workers(script, count=1).ask(["a"], deadline=60)
