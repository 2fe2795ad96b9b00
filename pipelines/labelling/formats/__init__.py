"""The files of labelling tools. A new one is one new file here, found by its name.

A file has `recognises(content)`, which says whether the JSON of a file is that tool's, `read(content, sheet)`, which
gives its judgements as JSON values (see judgements.read), and, where the tool takes questions, `write(sheet)`, which
gives the files that it takes, by their names.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from random import Random
from typing import Any

from trimtab.pipelines.labelling import judgements
from trimtab.pipelines.labelling.judgements import Judgement
from trimtab.pipelines.labelling.questions import Question, Sheet
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards import _foreign_json


def words() -> list[str]:
    """The tools' names."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def writers() -> list[str]:
    """Those of the tools that take questions."""
    return [word for word in words() if hasattr(_tool(word), "write")]


def read(path: Path, sheet: Sheet) -> list[Judgement]:
    """The judgements in a file of any of the tools. Raises RecipeError for another file, and for a wrong judgement."""
    try:
        content = _foreign_json.read(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read as JSON: {error}") from None
    tool = next((tool for tool in map(_tool, words()) if tool.recognises(content)), None)
    if tool is None:
        raise RecipeError(f"{path} is a file of none of {', '.join(words())}: export the answers as JSON")
    questions = {question.id: question for question in sheet.questions}
    taken: dict[tuple[str, str], Judgement] = {}
    try:
        for given in tool.read(content, sheet):
            judgement = judgements.read(given, questions, sheet.ranked)
            taken[judgement.rater, judgement.question] = judgement
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError | TypeError) else error
        raise RecipeError(f"{path}: {reason}") from None
    if not taken:
        raise RecipeError(f"{path} holds no answer that was handed in")
    return list(taken.values())


def write(word: str, sheet: Sheet, folder: Path) -> list[Path]:
    """Writes the files that a tool takes into a folder. Raises RecipeError for questions that it cannot ask."""
    try:
        files = _tool(word).write(sheet)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in files.items():
        written.append(folder / name)
        written[-1].write_text(content, encoding="utf-8")
    return written


def shuffled(question: Question) -> list[int]:
    """An order of the answers to show, always the same of a question; it stands in the tool's own file, too."""
    order = list(range(len(question.answers)))
    Random(question.id).shuffle(order)
    return order


def turns(question: Question) -> str:
    """The prompt as one text."""
    if len(question.prompt) == 1:
        return question.prompt[0][1]
    return "\n\n".join(f"{role}: {words}" for role, words in question.prompt)


def _tool(word: str) -> Any:
    return importlib.import_module(f"{__name__}.{word}")
