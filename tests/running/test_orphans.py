"""Ranks end with their launcher, also with one that died before they could ask for it."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT
from launches import until

KILLED = 128 + signal.SIGKILL


def rank(**variables):
    """Exit code of a script that was told of a launcher and would print its help."""
    env = {**os.environ, **variables}
    words = [sys.executable, "scripts/train.py", "--help"]
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True).returncode


def test_a_rank_whose_launcher_is_dead_ends_before_its_imports():
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert rank(LOCAL_RANK="0", TRIMTAB_LAUNCHER=str(dead.pid)) == KILLED


@pytest.mark.parametrize("told", [{"TRIMTAB_LAUNCHER": str(os.getpid())}, {}])
def test_one_whose_launcher_lives_goes_on(told):
    assert rank(LOCAL_RANK="0", **told) == 0


CHILD = """
import os, sys, time
sys.path.insert(0, "pipelines/running")
import orphans
while os.getppid() == orphans.AT_START:
    time.sleep(0.01)
orphans.die_with_launcher()
open(sys.argv[1], "w").close()
"""
PARENT = """
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], env={"LOCAL_RANK": "0"}).pid)
time.sleep(0.5)
"""


def test_one_whose_parent_dies_at_once_is_not_left(tmp_path):
    """The parent is gone before the rank asks to be told, and whoever took the rank in is no launcher of its."""
    went_on = tmp_path / "went_on"
    words = [sys.executable, "-c", PARENT, CHILD, str(went_on)]
    pid = int(subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 10)
    assert not went_on.exists()
