"""What a run of a recipe with points ends with: the points compared, as a table in the terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.files import write_atomically
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.reporting import comparison, comparison_page
from trimtab.pipelines.reporting.comparison import Comparison, Row
from trimtab.pipelines.running import environment, exits, progress
from trimtab.pipelines.running.listing import columns

PAGE = "comparison.html"
HEADINGS = ("setting", "mean", "of", "difference", "", "verdict")


def show(recipe: Recipe, steps: Sequence[Step]) -> None:
    """Prints what a person came for: of a recipe with points their comparison, else what its steps say."""
    if not recipe.points:
        environment.show(steps)
    elif recipe.study is None:  # a search shows all trials at its end
        present(recipe)


def present(recipe: Recipe) -> None:
    """Prints the comparison, and leaves its page."""
    if environment.MAIN:
        compared, best = comparison.compare(recipe), chosen(recipe)
        lines = ["", text(compared), *([best] if best else []), f"comparison: {write(recipe, compared, best)}"]
        print("\n".join(lines), flush=True)


def chosen(recipe: Recipe) -> str:
    """What a search has found so far, in a sentence."""
    best = recipe.study.best() if recipe.study else None
    if recipe.study is None or best is None:
        return ""
    values = ", ".join(f"{'.'.join(change.path)} = {change.value}" for change in recipe.study.changes(best))
    metric, ended = recipe.study.search.metric, recipe.study.ended
    return f"Of {ended} trials, trial-{best.number} has the best {metric}, {best.value:.4g}, with {values}."


@exits.command
def compare(path: str, overrides: Sequence[str] = (), *, trusting: bool = False) -> int:
    """Compares what the points of a recipe have left by now. Returns 2 for a mistake in it, or without points."""
    environment.prepare()
    try:
        recipe = progress.as_launched(path, overrides, trusting=trusting)
    except RecipeError as error:
        return environment.fail(str(error))
    if not recipe.points:
        return environment.fail(f"{path} has no points: give it a `sweep` or `arms`")
    present(recipe)
    return 0


def write(recipe: Recipe, compared: Comparison, chosen: str = "") -> Path:
    """Leaves the page in the recipe's folder."""
    path = recipe.run / PAGE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, comparison_page.render(compared, chosen))
    return path


def text(compared: Comparison) -> str:
    """A table for each metric, and the rule by which differences are told."""
    lines = [f"{compared.done} of {len(compared.points)} points are done"]
    for title, rows in compared.tables.items():
        lines += ["", title, columns([HEADINGS, *map(_cells, rows)])]
    if compared.same:
        lines += ["", f"the same in every setting: {'; '.join(compared.same)}"]
    if compared.comparisons:
        told, _, *caveats = comparison_page.rule(compared)
        lines += ["", told, *caveats]
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    mean, of = comparison_page.estimate(row.estimate), comparison_page.counts(row.estimate)
    if row.gap is None:
        return row.setting, mean, of, "", "", row.verdict
    gap = comparison_page.estimate(row.gap, True)
    return row.setting, mean, of, gap, comparison_page.probability(row.probability), row.verdict
