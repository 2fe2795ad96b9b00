"""Processes that answer lines of JSON with lines of JSON, each question with a deadline; one that dies is replaced."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

START = 120.0  # seconds for a process to say that it is ready


class Ended(Exception):
    """The process ended before it answered; `code` is its exit code, negative for a signal."""

    def __init__(self, code: int):
        super().__init__(f"its process ended with code {code}")
        self.code = code


class Workers:
    """Up to `count` processes that run the file `script`, each started when there is work for it.

    They end with this object, and with this process, because their input does.
    """

    def __init__(self, script: Path, count: int):
        self._script, self._count = script, count
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()

    def ask(self, questions: Sequence[Any], deadline: float) -> list[Any]:
        """The answers; in the place of one that did not come its Ended or, after `deadline` seconds, TimeoutError."""
        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(lambda question: self._answer(question, deadline), questions))

    def _answer(self, question: Any, deadline: float) -> Any:
        try:
            worker = self._idle.get_nowait()
        except queue.Empty:
            worker = _Worker(self._script)
        try:
            answer = worker.ask(question, deadline)
        except (Ended, TimeoutError) as error:
            worker.close()
            return error
        self._idle.put(worker)
        return answer


class _Worker:
    def __init__(self, script: Path):
        command = [sys.executable, "-P", str(script)]  # -P: the script's folder has files named like standard modules
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self._line(START)
        except (Ended, TimeoutError) as error:
            self.close()
            raise RuntimeError(f"{script.name} did not start: {error}") from error

    def ask(self, question: Any, deadline: float) -> Any:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Ended(self._process.wait()) from None
        return json.loads(self._line(deadline))

    def _line(self, seconds: float) -> bytes:
        """The next line of the process. Raises Ended, and TimeoutError."""
        assert self._process.stdout is not None
        end, line = time.monotonic() + seconds, b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(end - time.monotonic()):
                    raise TimeoutError(f"no answer within {seconds:g} s")
                part = os.read(self._process.stdout.fileno(), 1 << 16)
                if not part:
                    raise Ended(self._process.wait())
                line += part
        return line

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # of what was not written yet
                pipe.close()
