"""An exception that ends a step, as one line: whose it is, what it says, where, and where all of it is kept."""

from __future__ import annotations

import sys

from trimtab.pipelines.planning import tracebacks
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.running import disk

FILE = "traceback.txt"  # in the step's folder
MISTAKE, FAULT, WAITS = 2, 1, 75  # exit codes: of the recipe, of anything else, and of a step that waits for people


def report(error: BaseException, recipe: Recipe, step: Step) -> int:
    """Prints the line, keeps the traceback in the step's folder, and returns the exit code.

    Ranks fail together: the first one that comes here speaks for all. TRIMTAB_TRACEBACK=1 prints the traceback too.
    """
    refused = disk.refusal(error, recipe.run.parent)
    code = MISTAKE if refused is None and tracebacks.refuses_settings(error) else FAULT
    try:
        step.dir.mkdir(parents=True, exist_ok=True)
        with (step.dir / FILE).open("x") as file:
            file.write(tracebacks.whole(error) + "\n")
    except FileExistsError:
        return code
    except OSError:  # the disk is full, perhaps: that is no reason to say nothing
        pass
    if tracebacks.is_asked_for():
        print(tracebacks.whole(error), file=sys.stderr, flush=True)
    line = recipe.document.locate(RecipeError(refused or _told(error, step), step.path))
    print(f"\nerror: {line}", file=sys.stderr, flush=True)  # below a progress bar that nobody has ended
    return code


def is_told(step: Step) -> bool:
    """Whether the last launch of a step ended with an exception."""
    return (step.dir / FILE).exists()


def _told(error: BaseException, step: Step) -> str:
    if isinstance(error, SystemExit):
        return tracebacks.ended(error)
    whose = "a bug of Trimtab's: " if tracebacks.is_bug(error) else ""
    more = f"{step.dir / FILE} has the traceback, TRIMTAB_TRACEBACK=1 prints it"
    return f"{whose}{tracebacks.described(error)} ({tracebacks.place(error)}; {more})"
