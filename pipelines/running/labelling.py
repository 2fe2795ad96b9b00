"""`trimtab label`: the page of a run that waits for people, on this machine, and answers from files.

It works in the folder of the answers alone, beside a run that goes on with other steps, and on any copy of the run.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path

from trimtab.pipelines.labelling import folder as folders
from trimtab.pipelines.labelling import formats
from trimtab.pipelines.labelling.folder import Folder
from trimtab.pipelines.labelling.server import Server
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import artifacts, views


def asked(run: Path) -> Folder:
    """The questions of a run's folder, or of the step in one. Raises RecipeError where there are none.

    Of several steps that ask, the first one that waits.
    """
    steps = [run.resolve()]
    if plans := views.plans(run):
        steps = [run.parent / place for place in plans[-1]["steps"].values()]
    asking = {step: folder for step in steps if (folder := of_step(step))}
    if not asking:
        cure = "`trimtab run` its recipe first, until a step waits for people"
        raise RecipeError(f"{run} has no step that asks people: name the folder of a recipe, and {cure}")
    return next((asking[step] for step in asking if artifacts.read_done(step) is None), next(iter(asking.values())))


def of_step(folder: Path) -> Folder | None:
    """What a step asks people, by its folder; None where it has not asked."""
    try:
        key = json.loads((folder / folders.ASKS).read_text())["key"]
    except FileNotFoundError:
        return None
    return folders.read(folder.parent / folders.LABELLED / key)


def progress(folder: Folder) -> str:
    """How far the answers are, in a line."""
    left, every = len(folder.open()), len(folder.sheet.questions)
    if not left:
        return f"all {every} questions are answered: `trimtab run` goes on"
    return f"{every - left} of {every} questions are answered"


def serve(run: Path, port: int) -> None:
    """Serves the page until Ctrl-C. Raises RecipeError as `asked` does, and where the port is taken."""
    folder = asked(run)
    try:
        server = Server(folder, port, lambda rater, count: print(f"{rater}: {count}", flush=True))
    except OSError as error:
        raise RecipeError(f"port {port}: {error.strerror or error} (0 takes any that is free)") from None
    with server:
        print(f"{progress(folder)}\n{server.url}\nCtrl-C ends it; every answer is saved as it is given", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.1)
    print(f"\n{progress(folder)}")


def take(run: Path, files: list[Path]) -> None:
    """Adds the answers in files. Raises RecipeError for one that is of no known tool, or of other questions."""
    folder = asked(run)
    given = [(file, formats.read(file, folder.sheet)) for file in files]
    for file, judgements in given:
        print(f"{file}: {folder.add(judgements)} answers of {len({one.rater for one in judgements})}")
    print(progress(folder))


def give(run: Path, tool: str, target: Path) -> None:
    """Writes the files that a tool takes. Raises RecipeError for a tool that is not known."""
    folder = asked(run)
    for path in formats.write(tool, folder.sheet, target):
        print(path)
    known = sum(question.gold is not None for question in folder.sheet.questions)
    if known:
        print(f"{known} questions have known answers, which the files do not say", file=sys.stderr)
