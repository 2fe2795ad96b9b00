"""Launches of recipes in processes of their own: as a user starts them, or as forks of one that has imported all."""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from conftest import ROOT

from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.running import processes

MARK = {"TRIMTAB_LAUNCHED_BY": str(os.getpid())}  # in the environment of all forks, which is their parent's
TWO = Ranks(every=2)


def launch(script, *words, **kwargs):
    """A process of scripts/run.py or scripts/train.py."""
    return subprocess.Popen([sys.executable, str(ROOT / "scripts" / script), *words], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)  # fmt: skip


def train_started(recipe, *words):
    """scripts/train.py in a process of its own, by a fork."""
    return warm.start("script", ["scripts/train.py", str(recipe), *words])


def finished(process, timeout=300):
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def until(condition, timeout=120, pause=0.05):
    end = time.time() + timeout
    while not condition():
        assert time.time() < end, "timed out"
        time.sleep(pause)


def weights(step):
    """The hash of a step's weights."""
    return artifacts.read_done(step.dir)["files"]["model.safetensors"]["sha256"]


def ranks_command(recipe, *words, config="cpu", ranks=2):
    """The words of a real `accelerate launch` of scripts/train.py; `words` come after the recipe."""
    given = ranks_words(recipe, *words, config=config, ranks=ranks)
    return [sys.executable, "-m", "accelerate.commands.launch", *given]


def ranks_words(recipe, *words, config="cpu", ranks=2):
    """What follows `accelerate launch`."""
    return ["--config_file", f"accelerate_configs/{config}.yaml", "--num_processes", str(ranks), "scripts/train.py",
            str(recipe), *words]  # fmt: skip


def two_ranks_started(recipe, *words, config="cpu", ranks=2):
    """A launch, by a fork, that goes on."""
    return warm.start("launch", ranks_words(recipe, *words, config=config, ranks=ranks))


def two_ranks(recipe, *words, config="cpu", ranks=2, timeout=300):
    """Exit code and output of a launch, by a fork."""
    return finished(two_ranks_started(recipe, *words, config=config, ranks=ranks), timeout)


def trained(recipe, *, config="cpu", ranks=2, real=False):
    """The steps of a recipe by name, after a launch that went well; `real` for processes that import by themselves."""
    if real:
        done = subprocess.run(ranks_command(recipe, config=config, ranks=ranks), cwd=ROOT, capture_output=True,
                              text=True, timeout=400)  # fmt: skip
        code, out = done.returncode, done.stdout + done.stderr
    else:
        code, out = two_ranks(recipe, config=config, ranks=ranks)
    assert code == 0, out[-6000:]
    return {step.name: step for step in Recipe.load(str(recipe), ranks=Ranks(every=ranks)).steps}


class Fork:
    """The part of subprocess.Popen that tests use, for a fork of tests/warm.py that writes into `out`."""

    def __init__(self, out):
        self.out = out
        until(self._file("pid").exists, 300)  # the first one waits for all imports
        self.pid = int(self._file("pid").read_text())

    @property
    def returncode(self):
        return int(self._file("code").read_text()) if self._file("code").exists() else None

    def poll(self):
        return self.returncode

    def communicate(self, timeout=300):
        try:
            until(self._file("code").exists, timeout)
        except AssertionError:
            os.killpg(self.pid, signal.SIGKILL)
            raise TimeoutError(self.out.read_text()[-6000:]) from None
        return self.out.read_text(), None

    def _file(self, ending):
        return self.out.with_name(f"{self.out.name}.{ending}")


class Warm:
    """The process of tests/warm.py, which this one starts when it is first needed."""

    def __init__(self):
        self.process = None
        self.count = 0

    def begin(self):
        """Starts the process, if it is not there."""
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("warm.py"))], text=True,
                                            stdin=subprocess.PIPE, start_new_session=True, cwd=ROOT,
                                            env=os.environ | MARK)  # fmt: skip
            atexit.register(self.process.kill)

    def start(self, kind, words, out=None, **variables):
        """A fork that does `accelerate launch` with these words (`launch`), or runs a script (`script`, `run`)."""
        self.begin()
        self.count += 1
        out = out or Path(os.environ["XDG_CACHE_HOME"]) / f"launch-{self.process.pid}-{self.count}.log"
        self.process.stdin.write(
            json.dumps([kind, words, {**os.environ, **MARK, **variables}, str(ROOT), str(out)]) + "\n"
        )
        self.process.stdin.flush()
        return Fork(out)

    def launch(self, command, recipe, meanwhile=None):
        """Stands for running.processes.launch, with the words that it is given."""
        words = command[command.index("launch") + 1 :]
        code, out = finished(self.start("launch", words, **processes.handed_down(recipe)))
        print(out)
        return code


warm = Warm()
