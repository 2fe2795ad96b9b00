"""Reward kind `code`: model-written Python against its tests, in a sandbox.

    rewards:
      passes: {kind: code, tests: test_list, setup: test_setup_code}                      # MBPP's columns
      solves: {kind: code, tests: test, entry_point: entry_point, with_prompt: true, score: all}    # HumanEval's
      faster: {kind: code, tests: test_list, score: speed, reference: code}
      remote: {kind: code, tests: test_list, url: "http://sandbox:8080/run_code"}

The sandbox is bubblewrap's (the command `bwrap`: `apt-get install bubblewrap`), or a server that speaks as
SandboxFusion does. Without either nothing is run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from trimtab.rewards import Outcome, RewardFailure, text
from trimtab.rewards._asking import bearer
from trimtab.rewards._function import settle
from trimtab.rewards._programs import NotRun, Verdict, program, tried
from trimtab.rewards._sandbox import Limits, SandboxFailure, absent, limited, run

Scored = tuple[Outcome, dict[str, float]]
OPTIMISED = 1.1  # times fewer steps, from which a program counts as optimised


@dataclass(kw_only=True)
class Code:
    """How many of the tests in a column the program in a completion passes; no score where the tests are null.

    The program is the first fenced block of Python, or all of the completion; `with_prompt` puts the prompt in front.
    `tests` holds a list of tests, or one; a test passes when it raises nothing. The column `setup` runs between
    program and tests, and `entry_point` names the function that HumanEval's tests check.

    - `share`: the share of tests passed
    - `all`: 1 where all have passed, otherwise 0
    - `speed`: 0 unless all have passed, then the steps of the program in the column `reference` over the steps of
      this one, `fastest` at most. Steps are instructions of Python's interpreter, counted: the same on every machine
      with the same Python. What built-in functions do inside is not counted.
    - `optimised`: 1 where that speed is at least 1.1, otherwise 0: its mean is %OPT of PIE
      (https://arxiv.org/abs/2302.07867), and pass@n its %OPT of the best of n

    A process has `cpu_seconds` of processor time, `memory_mb` and `disk_mb` of MiB, and no network; a test that needs
    more has failed, and so has one that still sleeps after `deadline` seconds. `packages` lets programs import the
    packages of this environment. `url` is a sandbox's address, and `token_env` the variable with its bearer token.

    Raises PartlyScored: a sandbox that does not work, or a machine too busy to give a program its time, is a failure
    of the completion, and so is a reference that fails its tests. Raises ValueError without a sandbox.
    """

    tests: str = "test_list"
    setup: str | None = None
    entry_point: str | None = None
    with_prompt: bool = False
    score: Literal["share", "all", "speed", "optimised"] = "share"
    reference: str | None = None
    fastest: float = 10.0
    packages: bool = False
    cpu_seconds: int = 5
    deadline: float = 60
    memory_mb: int = 512
    disk_mb: int = 16
    workers: int = 2
    url: str | None = None
    token_env: str = "SANDBOX_TOKEN"

    # where the programs run, not what comes of it
    neutral: ClassVar[tuple[str, ...]] = ("deadline", "workers", "url", "token_env")

    @staticmethod
    def small(block: dict[str, Any], miniature: Any) -> dict[str, Any]:
        """Of a shrunk run: a random model writes no program."""
        return {"kind": "length", "target": 5, "unit": "characters"}

    def __post_init__(self) -> None:
        for name in ("cpu_seconds", "deadline", "memory_mb", "disk_mb", "workers", "fastest"):
            if not getattr(self, name) > 0:
                raise ValueError(f"code: {name} must be positive, got {getattr(self, name)}")
        if self._is_counted != (self.reference is not None):
            raise ValueError(
                "code: `score: speed` or `optimised` and `reference`, the column with a program to compare with, go "
                "together"
            )

    @property
    def _is_counted(self) -> bool:
        return self.score in ("speed", "optimised")

    def probe(self) -> Iterator[tuple[str, bool, str]]:
        """Whether the sandbox runs a program."""
        try:
            with self._sandbox() as sandbox:
                verdict = tried(sandbox, "answer = 42", ["assert answer == 42"])
            yield "sandbox", all(verdict.passed), self.url or "bubblewrap"
        except (ValueError, NotRun, SandboxFailure, RewardFailure) as error:
            yield "sandbox", False, str(error)

    def load(self) -> None:
        """Looks for the sandbox."""
        if self.url is None and (reason := absent()):
            raise ValueError(
                f"code: {reason}, and programs of a model are run nowhere else: apt-get install bubblewrap, or name a "
                "sandbox with `url`"
            )

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]:
        if not completions:
            return []
        named = [name for name in (self.tests, self.setup, self.entry_point, self.reference) if name is not None]
        for name in named:
            if name not in columns:
                raise ValueError(f"code: the data has no column {name!r} (it has: {', '.join(columns)})")
        rows = [{name: columns[name][place] for name in named} for place in range(len(completions))]
        with self._sandbox() as run_there, ThreadPoolExecutor(self.workers) as pool:
            run_tests = functools.cache(functools.partial(tried, run_there, count=self._is_counted))
            attempt = functools.partial(self._attempt, run_tests)
            results = list(pool.map(attempt, prompts, completions, rows))
        return settle(results, columns.get("log_extra"))

    def _attempt(
        self, run_tests: Callable[..., Verdict], prompt: Any, completion: Any, row: Mapping[str, Any]
    ) -> Scored:
        """The outcome of one completion, and the share of its tests and its steps for the log."""
        if row[self.tests] is None:
            return None, {}
        tests = tuple(self._tests(row))
        if not tests:
            return RewardFailure(f"there is no test in its column {self.tests!r}"), {}
        setup = row[self.setup] or "" if self.setup else ""
        written = program(text(completion))
        try:
            verdict = run_tests(text(prompt) + written if self.with_prompt else written, tests, setup)
            log = {"passed": verdict.share} | ({} if verdict.steps is None else {"steps": float(verdict.steps)})
            if self.reference is None:
                return float(verdict.share == 1) if self.score == "all" else verdict.share, log
            slow = run_tests(program(text(row[self.reference])), tests, setup)
        except (NotRun, SandboxFailure, RewardFailure) as error:
            return RewardFailure(f"the sandbox did not work: {error}"), {}
        speed = self._speed(verdict, slow)
        if self.score == "optimised" and isinstance(speed, float):
            speed = float(speed >= OPTIMISED)
        return speed, log

    def _speed(self, verdict: Verdict, slow: Verdict) -> Outcome:
        """How many times fewer steps a program takes than its reference; 0 for one that does not pass."""
        if slow.steps is None or slow.share < 1:
            return RewardFailure(f"the program in the column {self.reference!r} does not pass its own tests")
        if verdict.steps is None or verdict.share < 1:
            return 0.0
        return min(slow.steps / verdict.steps, self.fastest)

    def _tests(self, row: Mapping[str, Any]) -> list[str]:
        tests = row[self.tests]
        tests = [tests] if isinstance(tests, str) else list(tests)
        return [f"{test}\ncheck({row[self.entry_point]})" for test in tests] if self.entry_point else tests

    @contextlib.contextmanager
    def _sandbox(self) -> Iterator[Callable[[str], str]]:
        """What runs the text of a program and returns what it wrote."""
        self.load()
        limits = Limits(
            cpu_seconds=self.cpu_seconds, deadline=self.deadline, memory_mb=self.memory_mb, disk_mb=self.disk_mb
        )
        if self.url is None:
            yield functools.partial(run, limits=limits, packages=self.packages)
            return
        from trimtab.rewards._http import Post

        token = bearer(self.token_env)
        seconds = self.deadline + 30  # beyond the program's own, for the way there and back
        with Post(
            connect_timeout=10, timeout=seconds, tries=3, deadline=3 * seconds, max_response_mb=4, token=token
        ) as post:
            yield functools.partial(_run_remotely, post, self.url, limits)


def _run_remotely(post: Any, url: str, limits: Limits, source: str) -> str:
    """The same, by a server that speaks as SandboxFusion does."""
    body = {"code": limited(limits) + source, "language": "python", "run_timeout": limits.deadline}
    return post([url], body, _output)[1]


def _output(answer: Any) -> str:
    """What the program wrote, in a server's answer. Raises ValueError for an answer without it."""
    result = answer.get("run_result") if isinstance(answer, dict) else None
    if not isinstance(result, dict) or answer.get("status") == "SandboxError":
        raise ValueError("no run_result of a program in it")
    return str(result.get("stdout") or "")
