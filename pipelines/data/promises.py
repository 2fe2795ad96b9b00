"""What is certain of rows that a step above has still to leave, so that what cannot fit is found in the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import Form, makers
from trimtab.pipelines.planning import kinds, preflight
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


_made: dict[tuple[Path, str, str], Promise] = {}  # by the maker's folder, whose name is what it makes


@dataclass(frozen=True)
class Promise:
    """None where something is not certain.

    There will be at most `rows`, with as many `answers` to each prompt of the block `asked`, in none but these
    `columns`, with these `rewards` in their scores. `is_chat` says whether they are conversations, else text.
    """

    rows: int | None = None
    answers: int | None = None
    asked: Any = None
    columns: tuple[str, ...] | None = None
    rewards: tuple[str, ...] | None = None
    is_chat: bool | None = None


def of(block: Any, step: Step) -> Promise:
    """What is certain of a block that a pending step leaves; nothing is of any other."""
    if block is None or len(block.datasets) != 1:
        return Promise()
    entry = block.datasets[0]
    if entry.columns or getattr(entry, "layout", None):  # they become other rows
        return Promise()
    name = loading.files(entry)[0]
    maker = step.maker(name)
    if maker is None or maker.done or kinds.is_withheld(kinds.STAGES, maker.kind) or not preflight.is_open(maker):
        return Promise()
    folder = Path(name).relative_to(maker.output).as_posix()
    place = (maker.dir, folder, entry.split)
    if place not in _made:
        promise = preflight.build(maker).promise(maker, "" if folder == "." else folder, entry.split)
        _made[place] = replace(promise, rows=None) if "[" in entry.split else promise
    return _made[place]


def is_chat(block: Any, step: Step, place: Sequence[str]) -> bool | None:
    """Whether prompts are conversations, of those that are there and of those that are promised."""
    names = loading.files(block.datasets[0])
    if any(map(step.pending, names)) or len(block.datasets) != 1:
        return of(block, step).is_chat
    rows = loading.load(block, place)
    column = next((name for name in ("prompt", "messages", "text") if name in rows.column_names), None)
    return None if column is None else not isinstance(rows[0][column], str)


def written(stage: Any) -> Promise:
    """What a stage's `writes` promises, of one that passes no other columns on."""
    return Promise(columns=(*stage.writes, *TEMPLATED))


def check_columns(block: Any, step: Step, place: str, form: Form) -> None:
    """Raises RecipeError where a pending step will leave none of the sets of columns that a form takes."""
    columns = of(block, step).columns
    if columns is None or any(set(wanted) <= set(columns) for wanted in form.columns):
        return
    needed = " or ".join(" + ".join(wanted) for wanted in form.columns)
    maker = step.maker(loading.files(block.datasets[0])[0])
    leaves = f"rows of {', '.join(columns)}" if columns else "a model and no rows"
    stages = makers(form)
    cure = f": stages of kind {' or '.join(stages)} leave such rows" if stages else ""
    message = f"{maker.name if maker else block} will leave {leaves}, and here {needed} is needed{cure}"
    raise RecipeError(message, (*step.path, *place.split(".")))
