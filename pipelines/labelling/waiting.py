"""What people have answered to a sheet, or the sentence by which a step waits for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.pipelines.labelling import folder, formats, page
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.labelling.questions import Sheet
from trimtab.pipelines.planning.errors import Waiting
from trimtab.pipelines.recording import locks

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


def answers(sheet: Sheet, step: Step, files: Sequence[str] = ()) -> list[Judgement]:
    """The judgements that count, those in `files` among them. Every rank calls it.

    The page is written, and where answers are missing Waiting is raised, with a sentence that says how to give them.
    """

    def look() -> tuple[list[Judgement], str | None]:
        kept = folder.write(sheet, step.dir.parent)
        (kept.path / folder.PAGE).write_text(page.render(sheet), encoding="utf-8")
        (step.dir / folder.ASKS).write_text(json.dumps({"key": sheet.key}) + "\n")
        for file in files:
            kept.add(formats.read(Path(file).expanduser(), sheet))
        left = len(kept.open())
        return ([], _sentence(sheet, step, kept.path, left)) if left else (kept.counted(), None)

    given, waiting = locks.of_main(look)
    if waiting:
        raise Waiting(waiting)
    return given


def _sentence(sheet: Sheet, step: Step, path: Path, left: int) -> str:
    raters = "a person" if sheet.raters == 1 else f"{sheet.raters} people"
    return (
        f"{step.name} waits for people: {left} of {len(sheet.questions)} questions have still to be answered by "
        f"{raters}. `trimtab label {step.view.parent}` asks here; {path / folder.PAGE} is a page to send to "
        f"somebody, and `trimtab label {step.view.parent} --take FILE` takes what it saves"
    )
