"""Whose an exception is: of a library, of Trimtab, or of code of the user's; and its traceback, on request."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import SECRET, describe

UNDONE = "before its work was done"  # of code that has ended the process
OURS = [ROOT / room for room in ("pipelines", "rewards", "scripts")]
STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
INSTALLED = {"site-packages", "dist-packages"}  # folders of libraries, in whichever environment
# what libraries raise for settings that they do not take
OF_SETTINGS = (ValueError, TypeError, KeyError, AttributeError, ImportError, NotImplementedError)


@contextlib.contextmanager
def mistakes_of(path: Sequence[str]) -> Iterator[None]:
    """Makes a RecipeError, at `path`, of settings that a library refuses inside."""
    try:
        yield
    except Exception as error:
        if isinstance(error, RecipeError) or not refuses_settings(error):
            raise
        if is_asked_for():
            print(whole(error), file=sys.stderr, flush=True)
        hint = "" if is_asked_for() else "; TRIMTAB_TRACEBACK=1 shows all of it"
        raise RecipeError(f"{described(error)} ({place(error)}{hint})", path) from error


def refuses_settings(error: BaseException) -> bool:
    """Whether it is of a library and about what it was given, and not about the machine."""
    frame = _speaking(error)
    is_librarys = frame is not None and _is_installed(frame) and not _is_inside(frame, OURS)
    return is_librarys and (isinstance(error, OF_SETTINGS) or (isinstance(error, OSError) and error.errno is None))


def is_bug(error: BaseException) -> bool:
    """Whether it left code of Trimtab's that did not raise it for people to read."""
    frame = _speaking(error)
    return frame is not None and _is_inside(frame, OURS) and not (frame.line or "").startswith("raise ")


def ended(error: BaseException) -> str:
    """What to say of code that ended the process in the middle of its work."""
    how = (
        f"ended the process with sys.exit({error.code!r})"
        if isinstance(error, SystemExit)
        else f"raised {describe(error)}"
    )
    return f"{place(error)} {how} {UNDONE}"


def place(error: BaseException) -> str:
    """`file.py:12, in name` of the innermost line outside of Python's own library; "" for nowhere."""
    frame = _speaking(error)
    return f"{shown(Path(frame.filename).resolve())}:{frame.lineno}, in {frame.name}" if frame else ""


def described(error: BaseException) -> str:
    """An exception in a line, without secrets."""
    return SECRET.sub("(redacted)", describe(error))


def whole(error: BaseException) -> str:
    """The traceback, without secrets."""
    return SECRET.sub("(redacted)", "".join(traceback.format_exception(error))).rstrip()


def is_asked_for() -> bool:
    """Whether TRIMTAB_TRACEBACK asks for whole tracebacks."""
    return os.environ.get("TRIMTAB_TRACEBACK", "").lower() in ("1", "true", "yes", "on")


def _speaking(error: BaseException) -> traceback.FrameSummary | None:
    """The innermost frame outside of Python's own library: of a library, of Trimtab, or of the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    spoken = [frame for frame in frames if _is_installed(frame) or not _is_inside(frame, STANDARD)]
    while spoken and spoken[-1].name == "exit" and _is_installed(spoken[-1]):
        spoken.pop()  # libraries put a function of their own in the place of sys.exit, as wandb does
    return spoken[-1] if spoken else None


def _is_installed(frame: traceback.FrameSummary) -> bool:
    return bool(INSTALLED & set(Path(frame.filename).parts))


def _is_inside(frame: traceback.FrameSummary, folders: list[Path]) -> bool:
    file = Path(frame.filename).resolve()
    return any(file.is_relative_to(folder) for folder in folders)


def shown(file: Path) -> Path:
    """A file by the shortest name that says which it is."""
    packages = [folder for folder in file.parents if folder.name in INSTALLED]
    above = [*packages, ROOT, Path.cwd()]
    return next((file.relative_to(folder) for folder in above if file.is_relative_to(folder)), file)
