"""Rewards: one file per kind. The YAML word is the file name, the class its CamelCase, its fields the YAML keys.

To add `kind: brevity`, write `rewards/brevity.py` with a dataclass `Brevity` that satisfies `Reward`. No registry.
Rewards import nothing of `pipelines`, so each one also works alone in a notebook and in TRL's `reward_funcs`.

A completion has one of three outcomes: a score, None (the reward abstains), or a failure. A failure is never a score;
`outcomes` is how a caller asks for all three.

Besides its fields, a class may have these, each of which can be left out:

- `neutral: ClassVar[tuple[str, ...]]`: its keys that do not change a score, such as a timeout or a device. Another
  value of such a key scores nothing again, because it is not in a step's fingerprint.
- `names_code: ClassVar[tuple[str, ...]]`: its keys that name a function in a file. That file is then in the
  fingerprint, so that an edit of it scores again.
- `code_name: ClassVar[str]`: the name of such a function where only a file is given. `code_takes: ClassVar[tuple[str,
  ...]]`: parameters of which it has at least one, or it is not taken from an installed package.
- `small(block, miniature)`, a static method: the block that stands in its place in a run with `--shrink`, for a reward
  that needs a server or a large model. `miniature.model(name, scores=True)` is a tiny reward model.
- `reader()`: the tokenizer of the model that reads prompts and completions, and its context in tokens (None for no
  limit): prompts that do not fit are found before a training on the reward.
- `load()`: loads what the first call would load; `--check-rewards` measures it.
- `features(prompts, completions, **columns)`: what the reward's head reads of each, numbers, for a stage that puts a
  head of its own on them.
- `probe()`: yields (stage, ok, detail) of each stage on the way to a server; `--check-rewards` prints them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import numbers
import os
import re
import sysconfig
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from math import inf, isfinite, prod  # not the module: the kind `math` is loaded under that name here
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)

SECRET = re.compile(r"\b(?:hf_|sk-|gh[pousr]_|xox[a-z]-)[\w-]{8,}|(?<=Bearer )\S+|(?<=://)[^/@\s]+(?=@)")
_REWARDS = Path(__file__).resolve().parent
# folders whose lines say nothing to the author of a reward
_LIBRARIES = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
_TRIMTAB = [_REWARDS, _REWARDS.with_name("pipelines"), _REWARDS.with_name("scripts")]


class Reward(Protocol):
    """TRL's reward-function signature.

    `prompts` and `completions` have equal length and hold strings or lists of chat messages; further dataset columns
    arrive by name, and so may `completion_ids`, `trainer_state`, `log_extra` and `log_metric`, as in TRL. Returns one
    item per completion: a score, or None to abstain. Raises when it could not score: `PartlyScored` when it has
    outcomes for some completions, anything else when it has none.

    Constructing a reward is cheap and checks its options (ValueError); what is expensive is loaded by the first call.
    """

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]: ...


class RewardFailure(Exception):
    """One completion that could not be scored, and why.

    `reason` says why, `reward` is the reward's name in the recipe, `index` the completion's place in its dataset and
    `sample` its beginning, without secrets. Where an exception was the reason, it is the failure's `__cause__`.
    """

    def __init__(self, reason: str, *, reward: str = "", index: int | None = None, sample: str = ""):
        super().__init__(reason)
        self.reason, self.reward, self.index, self.sample = SECRET.sub("(redacted)", reason), reward, index, sample

    def __str__(self) -> str:
        if self.index is None:
            return self.reason
        return f"reward {self.reward!r} failed on completion {self.index} ({self.sample!r}): {self.reason}"

    def of_completion(self, reward: str, index: int, completion: Any) -> RewardFailure:
        """The same failure, of the same class, of one completion of a reward."""
        failure = copy(self)
        failure.reward, failure.index, failure.sample = reward, index, excerpt(completion)
        failure.__cause__ = self.__cause__
        return failure

    def reworded(self, reason: str) -> RewardFailure:
        """The same failure of the same completion, with more said of its reason."""
        failure = RewardFailure(reason, reward=self.reward, index=self.index, sample=self.sample)
        failure.__cause__ = self.__cause__
        return failure


Outcome = float | None | RewardFailure


class PartlyScored(Exception):
    """Raised by a reward that has no score for some completions; `outcomes` has one item per completion."""

    def __init__(self, outcomes: Sequence[Outcome]):
        self.outcomes = list(outcomes)
        failures = [outcome for outcome in self.outcomes if isinstance(outcome, RewardFailure)]
        super().__init__(
            f"{len(failures)} of {len(self.outcomes)} completions have no score; the first: {failures[0]}"
        )


def text(completion: str | list[dict[str, Any]]) -> str:
    """The plain text of a prompt or completion: itself, or its chat messages joined by newlines."""
    if isinstance(completion, str):
        return completion
    return "\n".join(_said(message.get("content")) for message in completion)


def _said(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message: itself, or that of its parts."""
    return "".join(part.get("text") or "" for part in content) if isinstance(content, list) else content or ""


def settled(outcomes: Sequence[Outcome]) -> list[float | None]:
    """The scores, as a reward returns them. Raises PartlyScored when there is a failure among them."""
    scores = [outcome for outcome in outcomes if not isinstance(outcome, RewardFailure)]
    if len(scores) < len(outcomes):
        raise PartlyScored(outcomes)
    return scores


def outcomes(
    reward: Callable[..., Any],
    prompts: list,
    completions: list,
    *,
    name: str = "",
    indices: Sequence[int] | None = None,
    **columns: Any,
) -> list[Outcome]:
    """What a reward says of every completion; it raises nothing of the reward's.

    A wrong number of scores fails every completion, and so does an exception; a NaN, an infinity or something that is
    no number fails its own. `name` and `indices` (of the completions in their dataset) go into the failures.
    """
    if not completions:
        return []
    try:
        answers = list(resolve(reward(prompts=prompts, completions=completions, **columns)))
    except PartlyScored as error:
        answers = error.outcomes
    except (Exception, SystemExit) as error:
        answers = [failure_of(error)] * len(completions)
    if len(answers) != len(completions):
        reason = f"{len(answers)} scores came back for {len(completions)} completions"
        answers = [RewardFailure(reason)] * len(completions)
    places = range(len(completions)) if indices is None else indices
    scored = []
    for answer, place, completion in zip(answers, places, completions, strict=True):
        outcome = score(answer)
        if isinstance(outcome, RewardFailure):
            outcome = outcome.of_completion(name, place, completion)
        scored.append(outcome)
    return scored


def score(value: Any) -> Outcome:
    """One returned item as an outcome: numbers (of Python, numpy or torch) must be finite."""
    if value is None or isinstance(value, RewardFailure):
        return value
    if hasattr(value, "item") and hasattr(value, "shape") and prod(value.shape) == 1:  # of numpy or torch
        value = value.item()
    if not isinstance(value, numbers.Real):
        return RewardFailure(f"expected a number, got {excerpt(repr(value))}")
    try:
        number = float(value)
    except OverflowError:
        number = inf
    return number if isfinite(number) else RewardFailure(f"the score is {number}")


def failure_of(error: BaseException) -> RewardFailure:
    """The failure that an exception of a reward means: what it says, and the last line of the author's code.

    The exception is its `__cause__`. With TRIMTAB_TRACEBACK=1 in the environment, the whole traceback is logged.
    """
    if isinstance(error, RewardFailure):
        return error
    line = _authors_line(error)
    is_logged = os.environ.get("TRIMTAB_TRACEBACK", "").lower() in ("1", "true", "yes", "on")
    if is_logged:
        lines = "".join(traceback.format_exception(error))
        logger.error("a reward raised:\n%s", SECRET.sub("(redacted)", lines).rstrip())
    hint = "" if is_logged else "; TRIMTAB_TRACEBACK=1 shows all of it"
    failure = RewardFailure(describe(error) + (f" ({line}{hint})" if line else ""))
    failure.__cause__ = error
    return failure


def _authors_line(error: BaseException) -> str:
    """`file.py:12, in accuracy`: where an exception left the code of the reward's author; "" for nowhere.

    That is the last line outside Trimtab and the libraries. Without one it is the last line in a kind's file in
    rewards/, unless the exception is a message to people, which such a file raises itself.
    """
    frames = traceback.extract_tb(error.__traceback__)
    authors = [frame for frame in frames if not _is_inside(frame, [*_LIBRARIES, *_TRIMTAB])]
    is_message = bool(frames) and _is_inside(frames[-1], _TRIMTAB) and (frames[-1].line or "").startswith("raise ")
    if not authors and not is_message:
        authors = [frame for frame in frames if _is_of_a_kind(frame)]
    if not authors:
        return ""
    file = Path(authors[-1].filename)
    shown = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    return f"{shown}:{authors[-1].lineno}, in {authors[-1].name}"


def _is_inside(frame: traceback.FrameSummary, folders: Sequence[Path]) -> bool:
    """Whether a frame's code stands in one of the folders, or in no file."""
    file = Path(frame.filename)
    return file.suffix != ".py" or any(file.is_relative_to(folder) for folder in folders)


def _is_of_a_kind(frame: traceback.FrameSummary) -> bool:
    """Whether a frame's code stands in the file of a kind, such as rewards/length.py."""
    file = Path(frame.filename)
    return file.parent == _REWARDS and not file.name.startswith("_")


def describe(error: BaseException) -> str:
    """An exception in a line: its type and what it says."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({error.code!r})"
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def excerpt(completion: Any, length: int = 80) -> str:
    """The beginning of a completion in one line, with what looks like a secret masked: fit for a log."""
    line = " ".join(SECRET.sub("(redacted)", text(completion)).split())
    return line if len(line) <= length else line[: length - 3] + "..."


def resolve(value: Any) -> Any:
    """The result of a function that may be async. All coroutines run on one loop, as in TRL, whoever calls."""
    if not inspect.isawaitable(value):
        return value
    return asyncio.run_coroutine_threadsafe(_awaited(value), _loop()).result()


async def _awaited(value: Awaitable) -> Any:
    try:
        return await value
    except (SystemExit, KeyboardInterrupt) as error:  # would end the loop's thread, and nobody would have an answer
        raise failure_of(error) from error


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop
