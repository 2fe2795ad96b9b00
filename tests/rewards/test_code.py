"""The reward `code`: what passes, what is counted, and everything that a program may try against the sandbox."""

import errno
import os
import platform
import re
import socket
import struct
from pathlib import Path

import pytest

from trimtab.rewards import RewardFailure, _programs, _sandbox, outcomes
from trimtab.rewards.code import Code

TESTS = ["assert double(1) == 2", "assert double(2) == 4"]
GOOD = "def double(x):\n    return 2 * x\n"
HALF = "def double(x):\n    return 2\n"


def works():
    """Whether programs can be run here; a kernel may forbid user namespaces."""
    if _sandbox.absent():
        return False
    return next(Code().probe())[1]


sandboxed = pytest.mark.skipif(not works(), reason="bubblewrap does not work here")


def score(reward, completions, tests=TESTS, **columns):
    columns = {name: [value] * len(completions) for name, value in columns.items()}
    return outcomes(reward, [""] * len(completions), completions, test_list=[tests] * len(completions), **columns)


def share(program, tests=TESTS, **options):
    [outcome] = score(Code(**{"cpu_seconds": 1, **options}), [program], tests)
    return outcome


@sandboxed
def test_a_score_is_the_share_of_tests_or_all_of_them():
    answers = [GOOD, HALF, "def double(x:", f"Here it is:\n```python\n{GOOD}```\nIt doubles.", ""]
    assert score(Code(), answers) == [1.0, 0.5, 0.0, 1.0, 0.0]
    assert score(Code(score="all"), answers) == [1.0, 0.0, 0.0, 1.0, 0.0]


@sandboxed
def test_a_test_that_ends_or_hangs_the_interpreter_fails_alone():
    program = "import os\ndef double(x):\n    if x == 1: os._exit(0)\n    while x == 2: pass\n    return 2 * x\n"
    assert share(program, ["assert double(3) == 6", *TESTS, "assert double(4) == 8"]) == 0.5


@sandboxed
def test_setup_runs_between_program_and_tests():
    answers = ["class Node:\n    pass\n"]
    reward = Code(setup="setup")
    assert score(reward, answers, ["assert root"], setup="root = Node()") == [1.0]
    assert score(reward, answers, ["assert root"], setup="root = Leaf()") == [0.0]


@sandboxed
def test_the_form_of_humaneval():
    reward = Code(tests="test", entry_point="name", with_prompt=True, score="all")
    columns = {"test": ["def check(f):\n    assert f(3) == 6\n"], "name": ["double"]}
    assert reward(prompts=["def double(x):\n"], completions=["    return 2 * x\n"], **columns) == [1.0]


@sandboxed
def test_steps_are_counted_and_the_same_every_time():
    slow = "def double(x):\n    total = 0\n    for _ in range(2 * x):\n        total += 1\n    return total\n"
    tests = ["assert double(300) == 600"]
    reward = Code(score="speed", reference="code", fastest=1000)
    first, same, wrong = score(reward, [GOOD, slow, HALF], tests, code=slow)
    assert first > 15
    assert (same, wrong) == (1.0, 0.0)
    assert score(reward, [GOOD], tests, code=slow) == [first]
    assert score(Code(score="speed", reference="code", fastest=3), [GOOD], tests, code=slow) == [3.0]
    assert score(Code(score="optimised", reference="code"), [GOOD, slow, HALF], tests, code=slow) == [1.0, 0.0, 0.0]
    [failure] = score(reward, [GOOD], tests, code=HALF)
    assert "does not pass its own tests" in failure.reason
    untold = "import sys\nsys.settrace(None)\n" + GOOD
    assert score(reward, [untold], tests, code=slow) == [0.0], "a program must not stop its own clock"


# what a program tries; `double` is only defined, and right, when it has succeeded
ESCAPES = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "processes": "import subprocess\nsubprocess.run(['/bin/true'])",
    "memory bomb": "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "shared memory": "import os\nos.memfd_create('x')",
    "network": "import socket\nsocket.create_connection(('127.0.0.1', PORT), 1)",
    "writing outside": "open('OUTSIDE/stolen', 'w')",
    "writing to the root": "open('/stolen', 'w')",
    "writing where Python is": "import os\nopen(os.path.dirname(os.__file__) + '/stolen.py', 'w')",
    "a full disk": "for i in range(99): open(f'/tmp/{i}', 'w').write('x' * (1 << 20))",
    "secrets of the environment": "import os\nassert 'SECRET' in str(os.environ)",
    "secrets in files": "open('OUTSIDE/secret').read()",
    "other processes": "import os\nopen('/proc/1/environ').read()",
    "killing the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(PARENT, signal.SIGKILL)",
    "a flood of output": "import os\nfor _ in range(999): os.write(1, b'x' * 65536)\nprint('x' * 10**7)\nexit()",
    "a flood into every file": (
        "import os\nfor fd in range(3, 64):\n    try:\n        while True: os.write(fd, b'x' * 65536)\n"
        "    except OSError: pass\nraise SystemExit"
    ),
    "symlinks": "import os\nos.symlink('OUTSIDE', '/tmp/link')\nopen('/tmp/link/secret').read()",
    "leaving with success": "import sys\nsys.exit(0)",
    "leaving at once": "import os\nos._exit(0)",
    "the expected words": "print('ready')\nprint('passed 0')\nprint('passed 1')\nraise SystemExit",
    "asking for input": "input()",
    "sleeping": "import time\ntime.sleep(100)",
    "more time": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (9, 9))",
    "a user namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
}


@sandboxed
@pytest.mark.parametrize("attempt", ESCAPES)
def test_what_a_program_tries_in_vain(attempt, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "of-the-environment")
    (tmp_path / "secret").write_text("of a file")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = ESCAPES[attempt].replace("OUTSIDE", str(tmp_path)).replace("PARENT", str(os.getpid()))
        program = program.replace("PORT", str(server.getsockname()[1]))
        deadline = 2 if attempt == "sleeping" else 60
        assert share(f"{program}\n{GOOD}", deadline=deadline, memory_mb=256) == 0.0
    assert [file.name for file in tmp_path.iterdir()] == ["secret"]


def decision(rules, architecture, number, argument=0):
    """What the kernel does with a system call: what a filter in its BPF returns of its number and first argument."""
    seen, loaded, place = {4: architecture, 0: number, 16: argument}, 0, 0
    lines = list(struct.iter_unpack("HBBI", rules))
    while True:
        code, if_true, if_false, value = lines[place]
        place += 1
        if code == _sandbox.RETURN:
            return value
        if code == _sandbox.LOAD:
            loaded = seen[value]
        else:
            holds = {_sandbox.EQUAL: loaded == value, _sandbox.ATLEAST: loaded >= value}
            place += if_true if holds.get(code, bool(loaded & value)) else if_false


@pytest.mark.parametrize(("machine", "table"), [
    ("x86_64", "x86_64-linux-gnu/asm/unistd_64.h"), ("aarch64", "asm-generic/unistd.h"),
])  # fmt: skip
def test_what_opens_the_kernel_is_refused_by_the_kernels_own_numbers(machine, table, monkeypatch):
    header = Path("/usr/include", table)
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    architecture, named, _, _ = _sandbox.CALLS[machine]
    numbers = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)\n", header.read_text())}
    rules = _sandbox._system_calls.__wrapped__()
    forbidden = {"clone", "clone3", *named}
    assert {"ptrace", "mount", "unshare", "bpf"} < forbidden <= numbers.keys()
    decided = {name: decision(rules, architecture, number) for name, number in numbers.items()}
    assert {name for name, what in decided.items() if what != _sandbox.ALLOW} == forbidden
    assert {decided[name] for name in named} == {_sandbox.ERRNO | errno.EPERM}
    assert decided["clone3"] == _sandbox.ERRNO | errno.ENOSYS
    assert decision(rules, architecture, numbers["clone"], _sandbox.CLONE_THREAD) == _sandbox.ALLOW, "a thread"
    assert decision(rules, architecture + 1, numbers["read"]) == _sandbox.KILL, "numbers of another machine"
    assert decision(rules, architecture, 0x40000000 + numbers["read"]) == _sandbox.KILL, "x32's numbers"


@sandboxed
@pytest.mark.parametrize(
    "trick",
    [
        "def set(x):\n    return 0\n",
        "import builtins\nbuiltins.set = lambda x: 0\n",
        "import sys\nsys.modules['__main__'].seen = lambda *names: {}\n",
        "open('test.py', 'w').write('pass')\nopen('/tmp/test_list', 'w').write('[]')\n",
        "__builtins__ = {'set': lambda x: 0}\n",
    ],
    ids=["shadow", "builtin", "harness", "files", "builtins"],
)
def test_tests_that_a_program_overwrites_fail_all_the_same(trick):
    assert share(f"{trick}def twice(x):\n    return []\n", ["assert set(twice([1])) == set([1, 1])"]) == 0.0


@sandboxed
def test_a_function_that_is_asked_for_may_be_called_like_a_builtin():
    assert share("def sum(a, b):\n    return a + b\n", ["assert sum(1, 2) == 3"]) == 1.0


@sandboxed
def test_what_programs_need_is_there():
    program = "import json, math, re, threading, itertools\nfrom dataclasses import dataclass\n"
    program += "open('notes', 'w').write('x')\n@dataclass\nclass Pair:\n    a: int\n"
    assert share(program + GOOD) == 1.0
    assert share("import numpy\n" + GOOD) == 0.0
    assert share("import numpy\n" + GOOD, packages=True, memory_mb=2048, cpu_seconds=10) == 1.0


def test_without_a_sandbox_nothing_is_run(monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.which", lambda name: None)
    program = f"open({str(tmp_path / 'ran')!r}, 'w')"
    [failure] = score(Code(), [program])
    assert "bwrap) is not installed, and programs of a model are run nowhere else" in failure.reason
    assert not list(tmp_path.iterdir())
    assert next(Code().probe())[1] is False


def test_a_sandbox_that_does_not_work_is_a_failure(monkeypatch, tmp_path):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(_sandbox, "absent", lambda: None)
    [failure] = score(Code(), [GOOD])
    assert isinstance(failure, RewardFailure)
    assert "bwrap: setting up uid map: Permission denied" in failure.reason


@pytest.mark.parametrize(("steps", "passed", "times"), [
    (50, (True, True), 4.0),  # 200 steps of the reference over those of the program
    (400, (True, True), 0.5),
    (1, (True, True), 10.0),  # no more than `fastest`
    (50, (True, False), 0.0),
    (None, (True, True), 0.0),
])  # fmt: skip
def test_the_speed_of_a_program_is_told_in_times_of_its_reference(steps, passed, times):
    reward = Code(score="speed", reference="code", fastest=10.0)
    slow = _programs.Verdict(passed=(True, True), steps=200)
    assert reward._speed(_programs.Verdict(passed=passed, steps=steps), slow) == times


def test_a_reference_that_does_not_pass_is_a_failure():
    reward = Code(score="speed", reference="code")
    for slow in (_programs.Verdict(passed=(True, False), steps=9), _programs.Verdict(passed=(True, True))):
        failure = reward._speed(_programs.Verdict(passed=(True,), steps=5), slow)
        assert "'code' does not pass its own tests" in failure.reason


def test_rows_without_tests_have_no_score():
    reward = Code(url="http://127.0.0.1:9/run_code")
    assert score(reward, [GOOD], None) == [None]
    [failure] = score(reward, [GOOD], [])
    assert "no test in its column 'test_list'" in failure.reason


def test_the_program_is_the_first_block_of_an_answer():
    assert _programs.program("So:\n```py\na = 1\n```\nUse:\n```python\nb\n```") == "a = 1\n"
    assert _programs.program("```\nunfinished = 1") == "unfinished = 1"
    assert _programs.program("a = 1") == "a = 1"


def test_the_program_of_the_sandbox_is_whole():
    assert "/proc" not in list(
        _sandbox._walls(_sandbox.Limits(cpu_seconds=1, deadline=1, memory_mb=1, disk_mb=1), False)
    )
    assert Path(_sandbox._python(False)[0]).is_file()
