"""Content compared with what was written: of a step's inputs before it runs, and of a whole store on request."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.pipelines.planning import finished, manifests, provenance
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import read_hash
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.planning.store import is_view
from trimtab.pipelines.recording.artifacts import CHECKPOINTS
from trimtab.pipelines.running import environment, exits

DEPTH = 3  # of folders in which steps are looked for, as runs/recipe/_merged/adapter


@dataclass
class Kind:
    """What is verified of one kind, artifacts or checkpoints: a line of the table."""

    name: str
    folders: dict[Path, manifests.Manifest] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    seconds: float = 0

    @property
    def sizes(self) -> list[int]:
        """The bytes of every file."""
        return [entry["bytes"] for manifest in self.folders.values() for entry in manifest.values()]


def require_content(recipe: Recipe, step: Step, *, main: bool) -> None:
    """Raises RecipeError on every rank where what a step is made from is not what was written; all ranks call it."""
    from accelerate.utils import broadcast_object_list

    error: list[RecipeError | None] = [None]
    if main:
        try:
            provenance.require_content(recipe, [step])
        except RecipeError as damage:
            error = [damage]
    broadcast_object_list(error)
    if error[0] is not None:
        raise error[0]


@exits.command
def verify(target: str, overrides: Sequence[str] = ()) -> int:
    """Reads all files of a run directory, a step or the steps of a recipe, and names what is not as it was written.

    Returns 0 where all is whole, 1 where a file is damaged, missing or was added, 2 where there is nothing to verify.
    """
    try:
        steps = _steps_of(target, overrides)
    except RecipeError as error:
        return environment.fail(str(error))
    if not steps:
        return environment.fail(f"{target} has no finished step: name a recipe, a run directory or a step's folder")
    artifacts, checkpoints = Kind("artifacts"), Kind("checkpoints")
    for folder in steps:
        _add_artifact(folder, artifacts)
        _add_checkpoints(folder, checkpoints)
    _read(artifacts, checkpoints)
    for sentence in (*artifacts.damage, *checkpoints.damage):
        print(sentence)
    print(_table(artifacts, checkpoints))
    return 1 if artifacts.damage or checkpoints.damage else 0


def _steps_of(target: str, overrides: Sequence[str]) -> list[Path]:
    """The folders of all steps that a run directory, a step's folder or a recipe stands for."""
    folder = Path(target).absolute()
    if is_view(folder):
        folder = _shown(folder)
    if folder.is_dir():
        return list(dict.fromkeys(_steps_in(folder, DEPTH)))
    recipe = Recipe.load(target, overrides, Ranks())
    return [step.dir for step in recipe.steps if _is_step(step.dir)]


def _steps_in(folder: Path, depth: int) -> Iterator[Path]:
    """The folders of steps in a folder, itself among them, and those that its links show."""
    if _is_step(folder):
        yield folder
    elif depth and folder.is_dir():
        for inside in sorted(folder.iterdir()):
            yield from _steps_in(_shown(inside) if is_view(inside) else inside, depth - 1)


def _shown(view: Path) -> Path:
    """The folder of the step that a view shows, which may itself be a link, as to another disk."""
    return Path(os.path.normpath(view.parent / os.readlink(view)))


def _is_step(folder: Path) -> bool:
    """Whether a folder is a step's that has left something, be it on a disk that is not there now."""
    left = (finished.DONE, finished.OUTPUT, CHECKPOINTS)
    return any(os.path.lexists(folder / name) for name in left) or (folder.is_symlink() and not folder.exists())


def _add_artifact(folder: Path, kind: Kind) -> None:
    """Adds what a finished step has written; a step that has left no output is not finished."""
    try:
        record = finished.written(folder)
    except (OSError, ValueError):
        kind.folders[folder] = {}
        return
    if record:
        kind.folders[folder] = {**record.manifest, **record.beside}
    elif folder.is_symlink() and not folder.exists():
        kind.folders[folder] = {}
    elif os.path.lexists(folder / finished.OUTPUT):
        kind.damage.append(f"{folder}/{finished.DONE} is missing beside the output")


def _add_checkpoints(folder: Path, kind: Kind) -> None:
    """Adds the checkpoints that were marked as complete; others were interrupted, and nothing goes on from them."""
    marked = sorted((folder / CHECKPOINTS).glob("checkpoint-*/complete.json"))
    if not marked:
        return
    from trimtab.pipelines.training import checkpoints

    for mark in marked:
        try:
            kind.folders[mark.parent] = checkpoints.read_mark(mark.parent)["files"]
        except (OSError, ValueError, KeyError, TypeError):
            kind.folders[mark.parent] = {}
            kind.damage.append(f"{mark} does not list the files that were written")


def _read(artifacts: Kind, checkpoints: Kind) -> None:
    """Reads every file, on a few threads at a time, and notes what is not as it was written."""
    from tqdm import tqdm

    total = sum(artifacts.sizes) + sum(checkpoints.sizes)
    with (
        ThreadPoolExecutor(manifests.THREADS) as pool,
        tqdm(total=total, unit="B", unit_scale=True, desc="verify", delay=2, leave=False) as bar,
    ):

        def hash_of(path: str, status: os.stat_result) -> str:
            digest = read_hash(path)
            bar.update(status.st_size)
            return digest

        started = time.monotonic()
        for folder in artifacts.folders:
            fingerprint = folder.name.rpartition("-")[2][:8]  # of a key
            sentences = finished.all_damage(folder, hash_of, pool, fingerprint)
            beside = [] if sentences else finished.damage_beside(folder, hash_of, pool)
            artifacts.damage += [f"{folder}/{sentence}" for sentence in sentences]
            artifacts.damage += [f"{folder.parent}/{sentence}" for sentence in beside]
        artifacts.seconds = time.monotonic() - started
        for folder, manifest in checkpoints.folders.items():
            listed = {**manifest, "complete.json": {}}
            sentences = manifests.damage(folder, manifest, hash_of, pool) + manifests.added(folder, listed)
            checkpoints.damage += [f"{folder.parent}/{sentence}" for sentence in sentences if manifest]
        checkpoints.seconds = time.monotonic() - started - artifacts.seconds


def _table(*kinds: Kind) -> str:
    """What was read, in a line for each kind."""
    lines = [f"{'':12} {'folders':>8} {'files':>8} {'bytes':>18} {'seconds':>8} {'damaged':>8}"]
    for kind in kinds:
        counts = f"{len(kind.folders):8} {len(kind.sizes):8} {sum(kind.sizes):18,} {kind.seconds:8.1f}"
        lines.append(f"{kind.name:12} {counts} {len(kind.damage):8}")
    return "\n".join(lines)
