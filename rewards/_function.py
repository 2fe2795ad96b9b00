"""What `trl_function`, `openrlhf_function` and `verl_function` share: finding a function of the user's and calling it.

rewards: {right: {kind: trl_function, path: my_rewards.py:accuracy}}  # a file, from the current folder
rewards: {thinks: {kind: trl_function, path: trl.rewards.think_format_reward}}  # anything importable
"""

import asyncio
import difflib
import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.rewards import Outcome, failure_of, resolve, score, settled
from trimtab.rewards._source import FILE, first_missing, locate


def load(kind: str, path: str, default: str | None = None) -> Callable[..., Any]:
    """The function at `path`: `file.py:name`, `my.module.name`, or `file.py` for the function called `default`.

    A file is loaded once per process, as a module is, with the modules beside it that it imports. Raises ValueError
    when there is no such file, module or name, and when it is not a function. What the user's own code raises while
    it loads comes through as it is.
    """
    place = locate(path, default)
    if place is None:
        raise _absent(kind, path)
    module, name = place.load(), place.name
    if name is None:
        raise ValueError(f"{kind}: {path} is a file; name the function in it: {path}:NAME")
    where = path.removesuffix(f":{name}").removesuffix(f".{name}")
    if not hasattr(module, name):
        near = _nearest(name, dir(module))
        cure = "" if near or name != default else f" (for a function of another name, write {where}:NAME)"
        raise ValueError(f"{kind}: {where} has no {name!r}{near}{cure}")
    function = getattr(module, name)
    if not callable(function) or inspect.isclass(function):
        what = "a class" if inspect.isclass(function) else f"of type {type(function).__name__}"
        raise ValueError(f"{kind}: expected a function, but {name!r} in {where} is {what}")
    return function


def must_take(kind: str, path: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Raises ValueError when calling the function with these arguments would be a TypeError, or it takes anything."""
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    if all(parameter.kind in variable for parameter in inspect.signature(function).parameters.values()):
        raise ValueError(f"{kind}: {path} names no parameter of its own, so nothing says that it is a reward")
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"{kind}: {path} cannot be called as functions of this kind are: {error} (a parameter of its own gets its "
            "value from `kwargs`; **kwargs in its signature takes what it does not use)"
        ) from None


def column(kind: str, columns: Mapping[str, Any], name: str) -> list:
    """The dataset column `name`. Raises ValueError, with the columns that there are."""
    if name not in columns:
        names = sorted(key for key, value in columns.items() if isinstance(value, Sequence))
        raise ValueError(
            f"{kind}: the data has no column {name!r}{_nearest(name, names)} (columns: {', '.join(names) or 'none'})"
        )
    return columns[name]


def attempts(calls: Iterable[Callable[[], Any]]) -> list[Any]:
    """What every call returned, or the RewardFailure of what it raised. What is async is awaited together."""
    results = [_attempt(call) for call in calls]
    return resolve(_together(results)) if any(map(inspect.isawaitable, results)) else results


def settle(
    results: Sequence[tuple[Outcome, Mapping[str, Any]]], log_extra: Callable[[str, list], Any] | None
) -> list[float | None]:
    """The scores of `(outcome, other values)`, one per completion.

    The numbers among the other values are logged, a column per name, with None where a row has no such number. Raises
    PartlyScored when there is a failure among the outcomes.
    """
    rows = [values for _, values in results]
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    for name in names:
        answers = [score(row.get(name)) for row in rows]
        numbers = [answer if isinstance(answer, float) else None for answer in answers]
        if log_extra is not None and any(number is not None for number in numbers):
            log_extra(name, numbers)
    return settled([outcome for outcome, _ in results])


def _absent(kind: str, path: str) -> ValueError:
    """What to say of a path that leads to no source file."""
    if matched := FILE.fullmatch(path):
        file = Path(matched["file"]).expanduser().resolve()
        near = _nearest(file.name, [sibling.name for sibling in file.parent.glob("*.py")])
        return ValueError(f"{kind}: there is no file {file}{near} (a relative path starts in the current folder)")
    module = path.rpartition(".")[0]
    if not module:
        return ValueError(f"{kind}: expected file.py:name or my.module.name, got {path!r}")
    missing = first_missing(module)
    return ValueError(
        f"{kind}: {path}: there is no module {missing!r} in the current folder or among the installed packages "
        "(a function in a file is written file.py:name)"
    )


def _nearest(word: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(names), n=1)
    return f", did you mean {near[0]!r}?" if near else ""


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (Exception, SystemExit) as error:
        return failure_of(error)


async def _together(results: Sequence[Any]) -> list[Any]:
    async def result(value: Any) -> Any:
        try:
            return await value if inspect.isawaitable(value) else value
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # the last two would end the loop
            return failure_of(error)

    return await asyncio.gather(*map(result, results))
