"""What a step is made from: artifacts of steps above, and those that its options name by their place.

Their content is compared with their done.json before it is used. The digest of each stands in the done.json of what is
made from it: so an artifact that was made again, with other bits, is told from the one that a step below has met.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

from trimtab.pipelines.planning import adapters, finished, manifests
from trimtab.pipelines.planning.errors import Mistakes, RecipeError
from trimtab.pipelines.planning.files import file_hash, is_local
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.planning.references import strings

REBUILD = "--rebuild makes it again"
SHOWN = 4  # files of a step that a line names


def require_whole(recipe: Recipe, steps: Iterable[Step], *, rebuild: bool = False) -> None:
    """Raises RecipeError for every damaged step of a recipe among these and those that they need.

    With `rebuild`, these themselves are to be made again.
    """
    chosen = {step.name: step for step in steps}
    needed = {source.name: source for step in chosen.values() if not step.done for source in step.inputs}
    looked_at = {name: step for name, step in {**needed, **chosen}.items() if not (rebuild and name in chosen)}
    damaged = [step for step in looked_at.values() if step.damage]
    lines = [(step.path, f"{step.name} is damaged: {_line(step.damage)}. {REBUILD}") for step in damaged]
    _raise([recipe.document.locate(RecipeError(line, path)) for path, line in lines])


def require_content(recipe: Recipe, steps: Iterable[Step]) -> None:
    """Raises RecipeError for everything that a step is made from whose content is not what was written.

    A file that nobody touches is read once, and its hash is remembered.
    """
    with ThreadPoolExecutor(manifests.THREADS) as pool:
        changes = chain.from_iterable(_changes(step, pool) for step in steps)
        _raise([recipe.document.locate(error) for error in changes])


@contextlib.contextmanager
def explained(recipe: Recipe, step: Step) -> Iterator[None]:
    """Raises RecipeError for an exception inside where the step is made from a damaged artifact."""
    try:
        yield
    except Exception as error:
        try:
            require_content(recipe, [step])
        except RecipeError as damage:
            raise damage from error
        raise


def digests(step: Step) -> dict[str, str]:
    """The digests of the artifacts of the steps that this one refers to."""
    records = {source.name: _record(source) for source in step.inputs}
    return {name: record.digest for name, record in records.items() if record}


def notes(steps: Iterable[Step]) -> list[str]:
    """A line for each step that was made from an artifact which has been made again since, with other bits."""
    lines = []
    for step in steps:
        record = _record(step)
        made_from = record.made_from if record else {}
        fingerprints = {source.name: source.fingerprint for source in step.inputs}
        today = digests(step).items()
        others = [name for name, digest in today if made_from.get(fingerprints[name], digest) != digest]
        if others:
            cure = f"delete {step.dir} to make it again"
            lines.append(f"{step.name} was made from another {' and '.join(others)} than is there now: {cure}")
    return lines


def _changes(step: Step, pool: ThreadPoolExecutor) -> Iterator[RecipeError]:
    """What is wrong with the artifacts that a step is made from."""
    folders = {source.dir: source.name for source in step.inputs if source.done}
    for folder, name in {**folders, **_elsewhere(step)}.items():
        if sentences := finished.all_damage(folder, file_hash, pool):
            yield RecipeError(f"its input {name} is damaged: {_line(sentences)}. {REBUILD}", step.path)
        elif sentences := finished.damage_beside(folder, file_hash, pool):
            cure = f"restore it, or delete {folder} to make the step again"
            yield RecipeError(f"its input {name} is damaged: {_line(sentences)}: {cure}", step.path)


def _record(step: Step) -> finished.Written | None:
    """What the done.json of a step says, None where it says nothing."""
    try:
        return finished.written(step.dir)
    except (OSError, ValueError):
        return None


def _elsewhere(step: Step) -> dict[Path, str]:
    """The folders of further finished steps in which places of its options lie, and bases of adapters among those."""
    places = [place for place in _places(step) if is_local(place)]
    adapters_here = [adapters.find(place) for place in places if Path(place).expanduser().is_dir()]
    bases = [adapter.base for adapter in adapters_here if adapter]
    known = [source.dir.resolve() for source in step.inputs]
    folders = [_folder(Path(place).expanduser().resolve()) for place in (*places, *bases)]
    return {folder: str(folder) for folder in folders if folder and folder not in known}


def _places(step: Step) -> Iterator[str]:
    """What may be a path among the options of a step; `file#word` is one."""
    return (text.partition("#")[0] for text in strings(step.options))


def _folder(path: Path) -> Path | None:
    """The folder of the finished step that a path lies in, None where it lies in none."""
    return next((folder for folder in path.parents if os.path.lexists(folder / finished.DONE)), None)


def _line(sentences: Sequence[str]) -> str:
    """The first sentences, and how many more there are."""
    more = len(sentences) - SHOWN
    return "; ".join(sentences[:SHOWN]) + (f"; and {more} more, which trimtab verify names" if more > 0 else "")


def _raise(errors: list[RecipeError]) -> None:
    """Raises all errors as one; `Mistakes.add` would keep one of a place."""
    mistakes = Mistakes()
    mistakes.kept += errors
    mistakes.raise_any()
