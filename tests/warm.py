"""A process that has imported torch, transformers and trl once, and forks every launch or script that it is asked for.

A launch is accelerate's own, from its words to its agent that watches the ranks; only the start of a Python process,
and with it ten seconds of imports, is a fork. A fork is a process as any other: it has a session of its own, gets
signals, and is killed. What ranks cannot show then is the same in every one of them that was
forked of one parent: the seed of Python's hashes. Launches that are to prove more are real ones (tests/launches.py).
"""

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import math
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback

IMPORTS = (
    *("torch.distributed.run", "torch.distributed.checkpoint", "torch._inductor.compile_fx", "scipy.io", "datasets"),
    *("transformers", "peft", "accelerate.commands.launch", "matplotlib.pyplot", "deepspeed"),
)
CLONE_NEWNET = 0x40000000
Popen = subprocess.Popen
TRAINERS = ("SFTTrainer", "RewardTrainer", "DPOTrainer", "GRPOTrainer")


class Forked:
    """The part of subprocess.Popen that torch's agent and scripts/run.py use, for a Python script that a fork runs."""

    def __init__(self, args, env, stdout=None, stderr=None, preexec_fn=None, **_):
        self.returncode = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            forget()
            if preexec_fn is not None:
                preexec_fn()
            for stream, number in ((stdout, 1), (stderr, 2)):
                if stream is not None:
                    os.dup2(stream.fileno(), number)
            end(run_script, [word for word in args[1:] if word != "-u"], env)

    def poll(self):
        return self.returncode if self.returncode is not None else self._reap(os.WNOHANG)

    def wait(self, timeout=None):
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.02)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def _reap(self, options):
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def forget():
    """Loses what a new process would not have of its parent's: the package's modules, and the lock that it holds."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "trimtab"]:
        del sys.modules[name]
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").endswith("/.lock"):
                os.close(int(number))


def popen(args, **options):
    """Stands for subprocess.Popen in scripts/run.py: its launches are forks, anything else is a process as ever."""
    is_script = args[0] == sys.executable and str(args[1]).endswith(".py")
    return (Forked if is_script else Popen)(args, **options)


def end(function, *arguments):
    """Ends this fork with the exit code of what it runs, as an interpreter would."""
    code = 0
    try:
        function(*arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        traceback.print_exc()
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def reset_signals():
    """The signals' meanings in a new interpreter, also where this one was started in the background."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def run_script(words, env):
    reset_signals()
    os.environ.clear()
    os.environ.update(env)
    sys.argv = words
    sys.path[0] = os.path.dirname(os.path.abspath(words[0]))
    sys.path[1:1] = [folder for folder in env.get("PYTHONPATH", "").split(":") if folder not in ("", *sys.path)]
    runpy.run_path(words[0], run_name="__main__")


def enter(env, cwd, out):
    """Gives this fork the output, folder and environment of a process of its own."""
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(file, number)
    os.chdir(cwd)
    if "TEST_NETWORK" in env:  # the name of a namespace that `ip netns` has made, as for `ip netns exec`
        with open(f"/run/netns/{env['TEST_NETWORK']}") as file:
            enter_network(file.fileno())
    os.environ.clear()
    os.environ.update(env)


def enter_network(number):
    if ctypes.CDLL(None, use_errno=True).setns(number, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def launch(words):
    from accelerate.commands import launch as accelerate
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    reset_signals()
    subprocess_handler.Popen = Forked
    accelerate.launch_command(accelerate.launch_command_parser().parse_args(words))


def run(words, env):
    """scripts/run.py, which launches by forks."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess.Popen = popen
    subprocess_handler.Popen = Forked
    run_script(words, env)


def start(kind, words, env, cwd, out):
    """A fork that does it, and one above it that writes its process id and, at its end, its exit code."""
    if os.fork():
        return
    die_with_parent()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        die_with_parent()
        os.setsid()
        enter(env, cwd, out)
        end(*{"launch": (launch, words), "run": (run, words, env), "script": (run_script, words, env)}[kind])
    publish(f"{out}.pid", pid)
    publish(f"{out}.code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def publish(path, number):
    with open(f"{path}.partial", "w") as file:
        file.write(str(number))
    os.rename(f"{path}.partial", path)


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def main():
    die_with_parent()  # the tests
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    for module in IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for name in TRAINERS:
        getattr(importlib.import_module("trl"), name)
    importlib.import_module("transformers.conversion_mapping").get_checkpoint_conversion_mapping("llama")  # fills it
    gc.freeze()  # a collection in a fork, of which each training makes several, looks at its own objects only
    for line in sys.stdin:
        start(*json.loads(line))


if __name__ == "__main__":
    main()
