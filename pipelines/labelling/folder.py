"""Where the answers to the same questions lie: `runs/steps/labelled/<key>/`, whichever step asks them.

questions.json         what is asked
label.html             the page, which needs nothing else
answers/<rater>.json   what a rater has said

Another number of raters, or other words above the questions, find the answers again. `trimtab prune` leaves them
alone: nobody can make them again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from trimtab.pipelines.labelling import judgements
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.labelling.questions import Question, Sheet
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import write_atomically

LABELLED, ASKS = "labelled", "asks.json"  # beside the steps; in a step's folder, which sheet it asks
QUESTIONS, PAGE, ANSWERS = "questions.json", "label.html", "answers"


@dataclass
class Folder:
    """The folder of a sheet, which one process writes at a time."""

    path: Path
    sheet: Sheet
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def questions(self) -> dict[str, Question]:
        """By their ids."""
        return {question.id: question for question in self.sheet.questions}

    def judgements(self) -> list[Judgement]:
        """Those of all raters. Raises RecipeError for a file that cannot be read."""
        files = sorted((self.path / ANSWERS).glob("[!.]*.json"))
        return [judgement for file in files for judgement in self._read(file)]

    def of_rater(self, rater: str) -> list[Judgement]:
        """Those of one rater."""
        file = self._file(rater)
        given = self._read(file) if file.exists() else []
        return [judgement for judgement in given if judgement.rater == rater]

    def _file(self, rater: str) -> Path:
        return self.path / ANSWERS / f"{quote(rater, safe='').replace('.', '%2E')}.json"

    def _read(self, file: Path) -> list[Judgement]:
        questions = self.questions
        try:
            given = json.loads(file.read_text(encoding="utf-8"))["judgements"]
            return [judgements.read(one, questions, self.sheet.ranked) for one in given]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecipeError(
                f"{file} cannot be read: {error or type(error).__name__}: mend it, or move it away"
            ) from None

    def counted(self) -> list[Judgement]:
        """Those of the raters who have answered enough of the questions right whose answers are known."""
        everything = self.judgements()
        left_out = judgements.unreliable(everything, self.questions, self.sheet.gold_least)
        return [judgement for judgement in everything if judgement.rater not in left_out]

    def open(self, rater: str | None = None) -> list[str]:
        """The questions that have not enough raters, without this one; those with known answers are open to all."""
        raters: dict[str, set[str]] = {}
        for judgement in self.counted():
            raters.setdefault(judgement.question, set()).add(judgement.rater)
        return [
            question.id
            for question in self.sheet.questions
            if len(raters.get(question.id, set()) - {rater}) < self.sheet.raters
            or (rater is not None and question.gold is not None)
        ]

    def add(self, given: Sequence[Judgement]) -> int:
        """Saves judgements of any raters; returns their number."""
        by_rater: dict[str, list[Judgement]] = {}
        for judgement in given:
            by_rater.setdefault(judgement.rater, []).append(judgement)
        for rater, theirs in by_rater.items():
            self.save(rater, theirs)
        return len(given)

    def save(self, rater: str, changed: Sequence[Judgement], undone: Sequence[str] = ()) -> int:
        """Puts judgements in the place of the rater's own of the same questions, on the disk; returns their number."""
        with self._writing:
            kept = {judgement.question: judgement for judgement in self.of_rater(rater)}
            kept |= {judgement.question: judgement for judgement in changed}
            left = [judgement.values() for question, judgement in kept.items() if question not in undone]
            said = {"rater": rater, "key": self.sheet.key, "judgements": left}
            (self.path / ANSWERS).mkdir(exist_ok=True)
            write_atomically(self._file(rater), json.dumps(said, indent=1, ensure_ascii=False) + "\n")
            return len(left)


def write(sheet: Sheet, steps: Path) -> Folder:
    """The folder of a sheet beside the `steps`, with what is asked now; answers stay as they are."""
    folder = Folder(steps / LABELLED / sheet.key, sheet)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.path / QUESTIONS, json.dumps(asdict(sheet), indent=1, ensure_ascii=False) + "\n")
    return folder


def read(path: Path) -> Folder:
    """The folder that `write` has made. Raises RecipeError for another one."""
    try:
        said: dict[str, Any] = json.loads((path / QUESTIONS).read_text(encoding="utf-8"))
        asked = [
            Question(**{**one, "prompt": [(role, words) for role, words in one["prompt"]]})
            for one in said["questions"]
        ]
        return Folder(path, Sheet(**{**said, "questions": asked}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(
            f"{path / QUESTIONS} cannot be read: {error}: run the recipe again, which writes it"
        ) from None
