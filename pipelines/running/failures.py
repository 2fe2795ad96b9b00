"""An exception that ends a step, as one line: whose it is, what it says, where, and how to see all of it."""

from __future__ import annotations

import os
import sys
import sysconfig
import traceback
from pathlib import Path

from trimtab.pipelines import ROOT
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.rewards import SECRET, describe

FILE = "traceback.txt"  # in the step's folder
MISTAKE, FAULT = 2, 1  # exit codes: of the recipe, and of anything else
OURS = [ROOT / room for room in ("pipelines", "rewards", "scripts")]
STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]
INSTALLED = {"site-packages", "dist-packages"}  # folders of libraries, in whichever environment
# what libraries raise for settings that they do not take
OF_SETTINGS = (ValueError, TypeError, KeyError, AttributeError, ImportError, NotImplementedError)


def report(error: Exception, recipe: Recipe, step: Step) -> int:
    """Prints the line, keeps the traceback in the step's folder, and returns the exit code.

    Ranks fail together: the first one that comes here speaks for all. TRIMTAB_TRACEBACK=1 prints the traceback too.
    """
    whole = SECRET.sub("(redacted)", "".join(traceback.format_exception(error)))
    line = recipe.document.locate(RecipeError(SECRET.sub("(redacted)", _told(error, step)), step.path))
    try:
        step.dir.mkdir(parents=True, exist_ok=True)
        with (step.dir / FILE).open("x") as file:
            file.write(whole)
    except FileExistsError:
        return _exit_code(error)
    except OSError:  # the disk is full, perhaps: that is no reason to say nothing
        pass
    if os.environ.get("TRIMTAB_TRACEBACK", "").lower() in ("1", "true", "yes", "on"):
        print(whole.rstrip(), file=sys.stderr, flush=True)
    print(f"\nerror: {line}", file=sys.stderr, flush=True)  # below a progress bar that nobody has ended
    return _exit_code(error)


def _told(error: Exception, step: Step) -> str:
    frame = _speaking(error)
    if frame is None:
        return describe(error)
    more = f"{step.dir / FILE} has the traceback, TRIMTAB_TRACEBACK=1 prints it"
    place = f"{_shown(Path(frame.filename).resolve())}:{frame.lineno}, in {frame.name}"
    if _is_ours(frame) and not (frame.line or "").startswith("raise "):
        return f"a bug of Trimtab's: {describe(error)} ({place}; {more})"
    return f"{describe(error)} ({place}; {more})"


def _exit_code(error: Exception) -> int:
    frame = _speaking(error)
    is_librarys = frame is not None and _is_installed(frame) and not _is_ours(frame)
    refuses = isinstance(error, OF_SETTINGS) or (isinstance(error, OSError) and error.errno is None)
    return MISTAKE if is_librarys and refuses else FAULT


def _speaking(error: Exception) -> traceback.FrameSummary | None:
    """The innermost frame outside of Python's own library: of a library, of Trimtab, or of the user's code."""
    frames = traceback.extract_tb(error.__traceback__)
    spoken = [frame for frame in frames if _is_installed(frame) or not _is_inside(frame, STANDARD)]
    return spoken[-1] if spoken else None


def _is_installed(frame: traceback.FrameSummary) -> bool:
    return bool(INSTALLED & set(Path(frame.filename).parts))


def _is_ours(frame: traceback.FrameSummary) -> bool:
    return _is_inside(frame, OURS)


def _is_inside(frame: traceback.FrameSummary, folders: list[Path]) -> bool:
    file = Path(frame.filename).resolve()
    return any(file.is_relative_to(folder) for folder in folders)


def _shown(file: Path) -> Path:
    """A file by the shortest name that says which it is."""
    packages = [folder for folder in file.parents if folder.name in INSTALLED]
    above = [ROOT, *packages, Path.cwd()]
    return next((file.relative_to(folder) for folder in above if file.is_relative_to(folder)), file)
