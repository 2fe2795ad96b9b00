"""Launches of recipes in processes of their own: as a user starts them, or as forks of one that has imported all."""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from conftest import ROOT

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import artifacts


def launch(script, *words, **kwargs):
    """A process of scripts/run.py or scripts/train.py."""
    return subprocess.Popen([sys.executable, str(ROOT / "scripts" / script), *words], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs)  # fmt: skip


def finished(process, timeout=300):
    out, _ = process.communicate(timeout=timeout)
    return process.returncode, out


def until(condition, timeout=120):
    end = time.time() + timeout
    while not condition():
        assert time.time() < end, "timed out"
        time.sleep(0.05)


def workers(folder):
    """Processes of train.py on runs below the folder."""
    words = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in words if "train.py" in line and str(folder) in line]


def weights(step):
    """The hash of a step's weights."""
    return artifacts.read_done(step.dir)["files"]["model.safetensors"]["sha256"]


def ranks_command(recipe, *words, config="cpu", ranks=2):
    """The words of a real `accelerate launch` of scripts/train.py; `words` come after the recipe."""
    return [sys.executable, "-m", "accelerate.commands.launch", *_launch(recipe, words, config, ranks)]


def _launch(recipe, words, config, ranks):
    return ["--config_file", f"accelerate_configs/{config}.yaml", "--num_processes", str(ranks), "scripts/train.py",
            str(recipe), *words]  # fmt: skip


def two_ranks(recipe, *words, config="cpu", ranks=2, timeout=300):
    """Exit code and output of a launch, by a fork."""
    return warm.run(_launch(recipe, words, config, ranks), timeout)


def trained(recipe, *, config="cpu", ranks=2, real=False):
    """The steps of a recipe by name, after a launch that went well; `real` for processes that import by themselves."""
    if real:
        done = subprocess.run(ranks_command(recipe, config=config, ranks=ranks), cwd=ROOT, capture_output=True,
                              text=True, timeout=400)  # fmt: skip
        code, out = done.returncode, done.stdout + done.stderr
    else:
        code, out = two_ranks(recipe, config=config, ranks=ranks)
    assert code == 0, out[-6000:]
    return {step.name: step for step in Recipe.load(str(recipe)).steps}


class Warm:
    """The process of tests/warm.py, which this one starts when it is first needed."""

    def __init__(self):
        self.process = None
        self.count = 0

    def run(self, words, timeout=300, **variables):
        """Exit code and output of `accelerate launch` with these words."""
        if self.process is None:
            self.process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("warm.py"))], text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
                                            cwd=ROOT)  # fmt: skip
            atexit.register(self.stop)
        self.count += 1
        out = Path(os.environ["XDG_CACHE_HOME"]) / f"launch-{self.count}.log"
        request = json.dumps([words, {**os.environ, **variables}, str(ROOT), str(out)])
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], timeout)[0]:
            self.stop()
            raise TimeoutError(out.read_text()[-6000:])
        return json.loads(self.process.stdout.readline()), out.read_text()

    def launch(self, command, recipe):
        """Stands for running.launch.launch, with the words that it is given."""
        code, out = self.run(command[2:], TRIMTAB_LOCK=str(recipe.run.resolve()))
        print(out)
        return code

    def stop(self):
        process, self.process = self.process, None
        if process is not None:
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                child.send_signal(signal.SIGKILL)
            process.wait()


warm = Warm()
