"""`trimtab prune`: what an output directory can do without: checkpoints of finished steps, and steps of no recipe.

Scores and merged adapters, which steps share, can go where every step that a recipe reaches is finished.

Recipes are known by the view.json that each run leaves in `<output_dir>/<recipe>`: what none of their plans has, and
no option of their steps names, is reached by no recipe. What is being made is left alone, and while a launcher works
on any recipe, so are all whole steps, since that recipe may be about to use them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trimtab.pipelines.forecasting.machines import used_disk
from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.store import MERGED, SCORED, STEPS, is_view
from trimtab.pipelines.recording import inventory
from trimtab.pipelines.recording.inventory import Entry
from trimtab.pipelines.recording.locks import Lock, of_folder
from trimtab.pipelines.reporting.numerals import size
from trimtab.pipelines.running import environment, exits
from trimtab.pipelines.running.listing import columns

SHARED = (SCORED, MERGED)
LEFT_OVER = ".*.pruned"  # by a prune that was interrupted


@dataclass(frozen=True)
class Waste:
    """A folder that can go, and why; `entry` is the step that it is, or is of, None of what several steps share."""

    folder: Path
    reason: str
    entry: Entry | None = None


@exits.command
def prune(root: str, *, really: bool) -> int:
    """Prints what can go, with sizes, and with `really` removes it. 2 where there are no steps."""
    found = inventory.entries(Path(root)) if Path(root).is_dir() else []
    if not found:
        return environment.fail(f"{root} has no steps: name an output directory, such as runs")
    launchers = inventory.running(Path(root))
    for recipe, holder in launchers.items():
        environment.note([f"{recipe} is worked on by {holder}: until that ends, no whole step is removed"])
    waste = list(_waste(found, whole_steps=not launchers))
    shared = _shared(Path(root))
    if not launchers and all(entry.record for entry in found if entry.reached):
        waste += [
            Waste(folder, "every step is finished, and it is made again where it is needed") for folder in shared
        ]
    sizes = {item.folder: used_disk(item.folder) for item in waste}
    whole = sum(map(used_disk, [*(entry.folder for entry in found), *shared]))
    rows: list[tuple[str, ...]] = [(str(item.folder), size(sizes[item.folder]), item.reason) for item in waste]
    if rows:
        print(columns(rows))
    removed = [item for item in waste if really and _remove(item)]
    if removed:
        _tidy(Path(root))
    told = "removed" if really else "can go: --yes removes it"
    total = sum(sizes[item.folder] for item in (removed if really else waste))
    print(f"{size(total)} of {size(whole)} {told}")
    return 0


def _waste(found: list[Entry], *, whole_steps: bool) -> Iterator[Waste]:
    for entry in found:
        if entry.holder:
            continue
        if not entry.reached and whole_steps:
            yield Waste(entry.folder, "no recipe reaches it", entry)
        elif entry.record is not None and entry.checkpoints.is_dir():
            yield Waste(entry.checkpoints, f"the step is finished ({', '.join(entry.reached)})", entry)


def _shared(root: Path) -> list[Path]:
    """The folders of scores and of merged adapters, which are no steps: whoever needs one makes it again."""
    return sorted(folder for name in SHARED for folder in (root / STEPS / name).glob("[!.]*") if folder.is_dir())


def _remove(waste: Waste) -> bool:
    """Removes a folder, unless somebody works on its step by now."""
    if waste.entry is None:
        _rename_and_remove(waste.folder)
        return True
    lock = Lock(of_folder(waste.entry.folder), "prune")
    if lock.take():
        return False
    try:
        if waste.folder != waste.entry.folder and finished.damage(waste.entry.folder, None) != ():
            return False  # what is damaged may be made again from its checkpoints
        _rename_and_remove(waste.folder)
    finally:
        lock.release()
    return True


def _rename_and_remove(folder: Path) -> None:
    hidden = folder.with_name(f".{folder.name}.pruned")
    os.rename(folder, hidden)  # whole or gone, whenever this is interrupted
    shutil.rmtree(hidden, ignore_errors=True)


def _tidy(root: Path) -> None:
    """Removes what an interrupted prune has left, and links to steps that are no more."""
    for hidden in (*root.glob(f"*/{LEFT_OVER}"), *root.glob(f"*/*/{LEFT_OVER}")):
        shutil.rmtree(hidden, ignore_errors=True)
    for link in filter(is_view, root.glob("*/*")):
        if not link.exists():
            link.unlink()
