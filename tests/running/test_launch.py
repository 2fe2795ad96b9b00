"""What a launcher does with signals: the first is handed on and waited for, a second one ends everything."""

import functools
import os
import signal
import threading

import psutil
import pytest
from launches import until
from run_steps import write_recipe

from trimtab.pipelines.planning import commands
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.running import processes

STANDS_IN = """
import pathlib, signal, subprocess, sys, time

heard, obeys = pathlib.Path(sys.argv[1]), sys.argv[2] == "obeys"

def hear(number, frame):
    with heard.open("a") as file:
        file.write(f"{number} ")
    if obeys:
        sys.exit(0)

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, hear)
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
heard.with_name("rank").write_text(str(rank.pid))
heard.write_text("ready ")
while True:
    time.sleep(60)
"""


class Stopped:
    """A launch that a signal stops as soon as its process listens, and what is known of it then."""

    def __init__(self, folder, monkeypatch, manner, signals):
        script, self.heard = folder / "accelerate.py", folder / "heard"
        script.write_text(STANDS_IN)
        monkeypatch.setattr(processes, "QUIET", script)
        recipe = Recipe.load(str(write_recipe(folder, {"world": {}})))
        sender = threading.Thread(target=self._send, args=(signals,))
        sender.start()
        before = signal.getsignal(signal.SIGINT)
        self.code = processes.launch([*commands.ACCELERATE, str(self.heard), manner], recipe)
        sender.join()
        assert signal.getsignal(signal.SIGINT) == before
        self.rank = int((folder / "rank").read_text())

    def _send(self, signals):
        for count, number in enumerate(signals, 1):  # the next one only after the one before was heard
            until(functools.partial(self._has_heard, count), 20)
            os.kill(os.getpid(), number)

    def _has_heard(self, words):
        return self.heard.exists() and len(self.heard.read_text().split()) >= words

    def has_rank(self):
        return psutil.pid_exists(self.rank) and psutil.Process(self.rank).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Makes a launch that ends as its test says."""
    return lambda manner, *signals: Stopped(tmp_path, monkeypatch, manner, signals)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_handed_on_once_and_waited_for(stopped, number, capfd):
    ended = stopped("obeys", number)
    assert ended.code == 128 + number
    assert ended.heard.read_text() == f"ready {int(number)} "
    assert "waiting for a checkpoint, 300 s at most" in capfd.readouterr().out
    os.kill(ended.rank, signal.SIGKILL)  # which in this place nobody has told of its parent's end


def test_a_second_one_ends_everything_at_once(stopped):
    ended = stopped("stays", signal.SIGINT, signal.SIGTERM)
    assert ended.code == 130
    until(lambda: not ended.has_rank(), 5)


def test_so_does_the_deadline(stopped, monkeypatch, capfd):
    monkeypatch.setenv("TRIMTAB_GRACE", "0.1")
    ended = stopped("stays", signal.SIGTERM)
    assert ended.code == 143
    assert "no end within 0.1 s (TRIMTAB_GRACE): ended without a checkpoint" in capfd.readouterr().out
    until(lambda: not ended.has_rank(), 5)


ONE_FAILS = """
import os, signal, sys, time

if os.environ["JOB"] == "fails":
    sys.exit(7)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
open(sys.argv[1], "w").close()
time.sleep(60)
"""


def test_of_several_at_once_the_others_stop_when_one_has_failed(tmp_path, monkeypatch):
    script, begun = tmp_path / "accelerate.py", tmp_path / "begun"
    script.write_text(ONE_FAILS)
    monkeypatch.setattr(processes, "QUIET", script)
    recipe = Recipe.load(str(write_recipe(tmp_path, {"world": {}})))
    shares = [{"JOB": "goes on"}, {"JOB": "fails"}]
    before = psutil.Process().children()
    assert processes.launch([*commands.ACCELERATE, str(begun)], recipe, shares=shares) == 7
    assert processes.launch([*commands.ACCELERATE, str(begun)], recipe, shares=shares[1:]) == 7
    assert set(psutil.Process().children()) <= set(before)
