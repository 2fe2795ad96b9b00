"""A process of bubblewrap's in which a program of a stranger may run: what it sees, what it may do, and when it ends.

It sees Python, the libraries of the system and an empty folder /tmp of limited size, nothing else of the disk; no
network, no environment, no other process. The kernel limits its processor time, its memory and its files, and it
cannot start a process: a filter of system calls says no. It is killed with all that belongs to it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache")
DEVICES = ("/dev/null", "/dev/urandom")
ISOLATED = "--unshare-user --unshare-all --uid 65534 --gid 65534 --cap-drop ALL --die-with-parent --new-session"
OUTPUT = 1 << 20  # bytes that are read of what it says


class SandboxFailure(Exception):
    """The sandbox itself did not work, which says nothing of the program."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one process: processor time and wall-clock time in seconds, memory, and files altogether in MiB."""

    cpu_seconds: int
    deadline: float
    memory_mb: int
    disk_mb: int


def absent() -> str | None:
    """Why there is no sandbox on this machine; None where there is one."""
    if shutil.which("bwrap") is None:
        return "bubblewrap (the command bwrap) is not installed"
    if platform.machine() not in CALLS:
        return f"the system calls of {platform.machine()} are not known here (but those of {', '.join(CALLS)})"
    return None


def run(source: str, limits: Limits, *, packages: bool = False) -> str:
    """What the Python program `source` writes on its standard output before it ends or is ended.

    With `packages`, the packages of this environment can be imported. Raises SandboxFailure when the sandbox could
    not be made, or the machine was too busy to give the program its processor time before the deadline.
    """
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complaints, tempfile.TemporaryFile() as calls:
        calls.write(_system_calls())
        calls.seek(0)
        process = subprocess.Popen(
            [
                shutil.which("bwrap") or "bwrap",
                "--seccomp",
                str(calls.fileno()),
                *_walls(limits, packages),
                *_python(packages),
            ],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=complaints,
            env={},
            pass_fds=[calls.fileno()],
            start_new_session=True,
        )
        try:
            process.communicate((limited(limits) + source).encode(), timeout=limits.deadline)
        except subprocess.TimeoutExpired:
            if _is_running(process.pid):
                raise SandboxFailure(f"it was still waiting for the processor after {limits.deadline:g} s") from None
        finally:
            _kill(process)
        said.seek(0)
        complaints.seek(0)
        complaint = complaints.read(500).decode(errors="replace").strip()
        if complaint.startswith("bwrap:"):
            raise SandboxFailure(complaint)
        return said.read(OUTPUT).decode(errors="replace")


def limited(limits: Limits) -> str:
    """The lines in front of a program with which it takes its limits, which it cannot raise again."""
    return f"""\
import resource as _r
_r.setrlimit(_r.RLIMIT_CPU, ({limits.cpu_seconds}, {limits.cpu_seconds}))
_r.setrlimit(_r.RLIMIT_AS, ({limits.memory_mb} << 20, {limits.memory_mb} << 20))
_r.setrlimit(_r.RLIMIT_FSIZE, ({limits.disk_mb} << 20, {limits.disk_mb} << 20))
_r.setrlimit(_r.RLIMIT_NOFILE, (64, 64))
_r.setrlimit(_r.RLIMIT_CORE, (0, 0))
del _r
"""


def _walls(limits: Limits, packages: bool) -> Iterator[str]:
    """Options of bubblewrap: a root of its own, in which only /tmp can be written."""
    yield from ISOLATED.split()
    yield from ("--size", str(limits.disk_mb << 20), "--tmpfs", "/tmp")  # below which packages may lie
    paths = [*SYSTEM, sys.base_prefix, *(_site_packages() if packages else ())]
    for path in dict.fromkeys(paths):
        yield from ("--ro-bind-try", path, path)
    for device in DEVICES:
        yield from ("--dev-bind", device, device)
    yield from ("--chdir", "/tmp", "--remount-ro", "/")
    for name, value in {"HOME": "/tmp", "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}.items():
        yield from ("--setenv", name, value)
    if packages:
        yield from ("--setenv", "PYTHONPATH", ":".join(_site_packages()))


def _python(packages: bool) -> list[str]:
    """The interpreter, which reads its program from its input; -P and -I: it imports nothing of /tmp by accident."""
    python = os.path.realpath(sys.executable)
    return [python, "-s", "-P", "-S", "-"] if packages else [python, "-I", "-S", "-"]


def _site_packages() -> list[str]:
    """The folders of this environment's packages, with those that its .pth files add."""
    known = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path]
    return list(dict.fromkeys(path for path in known if Path(path).name == "site-packages"))


def _is_running(pid: int) -> bool:
    """Whether a process below this one wants the processor, and does not sleep."""
    import psutil

    below = psutil.Process(pid).children(recursive=True)
    return any(_status(process) == psutil.STATUS_RUNNING for process in below)


def _status(process: object) -> str:
    import psutil

    try:
        return process.status()  # type: ignore[attr-defined]
    except psutil.NoSuchProcess:
        return ""


def _kill(process: subprocess.Popen) -> None:
    """Ends the process and its group; what bubblewrap started dies with it."""
    with contextlib.suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


# Numbers of system calls: the architecture's word in the kernel, calls that are refused, clone, and clone3.
# fmt: off
CALLS = {
    "x86_64": (0xC000003E, {
        "fork": 57, "vfork": 58, "ptrace": 101, "mount": 165, "umount2": 166, "kexec_load": 246, "add_key": 248,
        "request_key": 249, "keyctl": 250, "unshare": 272, "perf_event_open": 298, "setns": 308, "memfd_create": 319,
        "bpf": 321, "userfaultfd": 323, "shmget": 29, "io_uring_setup": 425,
    }, 56, 435),
    "aarch64": (0xC00000B7, {
        "ptrace": 117, "mount": 40, "umount2": 39, "kexec_load": 104, "add_key": 217, "request_key": 218,
        "keyctl": 219, "unshare": 97, "perf_event_open": 241, "setns": 268, "memfd_create": 279, "bpf": 280,
        "userfaultfd": 282, "shmget": 194, "io_uring_setup": 425,
    }, 220, 435),
}
# fmt: on
EPERM, ENOSYS, CLONE_THREAD = 1, 38, 0x10000
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
LOAD, EQUAL, ATLEAST, ANYBIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


@functools.cache
def _system_calls() -> bytes:
    """The filter of system calls, in the kernel's BPF: no process but threads, and nothing that opens the kernel."""
    architecture, refused, clone, clone3 = CALLS[platform.machine()]
    lines = [
        (LOAD, 0, 0, 4),  # the architecture
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),  # the number of the call
        (ATLEAST, 0, 1, 0x40000000),  # the other numbers of the same calls on x86_64
        (RETURN, 0, 0, KILL),
        (EQUAL, 0, 1, clone3),  # its flags lie in memory; without it libraries fall back to clone
        (RETURN, 0, 0, ERRNO | ENOSYS),
    ]
    for call in refused.values():
        lines += [(EQUAL, 0, 1, call), (RETURN, 0, 0, ERRNO | EPERM)]
    lines += [
        (EQUAL, 0, 3, clone),
        (LOAD, 0, 0, 16),  # its flags
        (ANYBIT, 1, 0, CLONE_THREAD),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
