"""A recipe with points becomes one plan: the steps of all points, each of them once.

Every point is planned as the recipe that it is. Steps with the same key are one step then, and steps that differ have
the values by which they do behind their names: `sft@seed=1`, `dpo@beta=0.1,seed=1`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Sequence

from trimtab.pipelines.planning import points
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import Mistakes, RecipeError, suggest
from trimtab.pipelines.planning.planner import Planner
from trimtab.pipelines.planning.points import Axis, Choice, Point
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.planning.references import UNKNOWN
from trimtab.pipelines.planning.search import Search, Study

MOST = 1000  # points: what is planned in each process

Combination = tuple[int, ...]  # the index of a choice for each axis


def plan(document: Document, overrides: tuple[str, ...], ranks: Ranks) -> Recipe:
    """The plan of a recipe, of all its points where it has some. Raises RecipeError."""
    entries = points.entries(document, overrides)
    search = Search.read(document)
    if search is None:
        return _expanded(points.axes(document, entries), document, overrides, ranks)
    alone = Planner(Document.sketched(document.path, overrides), overrides, ranks).plan()
    _require_step(search, alone)
    space = [entry for entry in entries if not entry.of_seeds]
    study = Study.of(search, space, alone.run, {step.name: step.key for step in alone.steps})
    axes = points.axes(document, [entry for entry in entries if entry.of_seeds])
    trials = study.axis()
    recipe = _expanded([trials, *axes] if trials else axes, document, overrides, ranks)
    return dataclasses.replace(recipe, study=study)


def _expanded(axes: Sequence[Axis], document: Document, overrides: tuple[str, ...], ranks: Ranks) -> Recipe:
    """The plan of all combinations of the choices of some axes."""
    if not axes:
        return Planner(document, overrides, ranks).plan()
    count = math.prod(len(axis.choices) for axis in axes)
    if count > MOST:
        raise RecipeError(f"{count} points are more than the {MOST} that one recipe can have", axes[-1].place)
    plain = Document.sketched(document.path, ())
    recipes: dict[Combination, Recipe] = {}
    mistakes = Mistakes()
    for combination in itertools.product(*(range(len(axis.choices)) for axis in axes)):
        of_point = _document(plain, _choices(axes, combination), document)
        for override in overrides:
            of_point.override(override)
        try:
            recipes[combination] = Planner(of_point, overrides, ranks).plan()
        except RecipeError as error:
            mistakes.add(of_point.locate(error))
    mistakes.raise_any()
    return Grid(axes, recipes).recipe()


class Grid:
    """The plans of all points, and what of them is the same."""

    def __init__(self, axes: Sequence[Axis], recipes: dict[Combination, Recipe]):
        self.axes, self.recipes = axes, recipes
        self.keys = {point: _keys(recipe, point) for point, recipe in recipes.items()}
        self.names = list(dict.fromkeys(step.name for recipe in recipes.values() for step in recipe.steps))
        self.varying = {name: [axis for axis in range(len(axes)) if self._varies(name, axis)] for name in self.names}
        self.steps: dict[tuple[str, object], Step] = {}  # by name in the recipe and key

    def recipe(self) -> Recipe:
        """The one plan. Raises RecipeError for two choices that come to the same steps."""
        for axis in self.axes:
            if axis.place != ("search",):  # where trials may come to the same values
                self._require_difference(axis)
        merged = [self._point(combination) for combination in self.recipes]
        first = next(iter(self.recipes.values()))
        for other in self.recipes.values():  # where the values of all points are written
            first.document.lines |= other.document.lines | first.document.lines
            first.document.origins |= other.document.origins | first.document.origins
        order = {stage: position for position, stage in enumerate(first.document.values["stages"])}
        steps = sorted(self.steps.values(), key=lambda step: order[step.stage])
        return dataclasses.replace(first, steps=tuple(steps), points=tuple(merged))

    def _point(self, combination: Combination) -> Point:
        choices = _choices(self.axes, combination)
        steps: dict[str, Step] = {}
        for step in self.recipes[combination].steps:
            identity = step.name, self.keys[combination][step.name]
            if identity not in self.steps:
                self.steps[identity] = self._named(step, combination, steps)
            steps[step.name] = self.steps[identity]
        seeds = [choice for axis, choice in zip(self.axes, choices, strict=True) if axis.of_seeds]
        others = [choice for choice in choices if choice not in seeds]
        return Point(points.label(choices), points.label(others), points.label(seeds), _values(choices), steps)

    def _named(self, step: Step, combination: Combination, above: dict[str, Step]) -> Step:
        """The step under the name that it has in the whole plan, made from steps under theirs."""
        choices = [self.axes[axis].choices[combination[axis]] for axis in self.varying[step.name]]
        point = points.label(choices)
        name = f"{step.name}@{point}" if choices else step.name
        inputs = tuple(above[source.name] for source in step.inputs)
        view = step.view.with_name(name)
        return dataclasses.replace(step, name=name, view=view, inputs=inputs, point=point, varied=_values(choices))

    def _varies(self, name: str, axis: int) -> bool:
        """Whether the step of this name is not the same for all choices of an axis."""
        keys: dict[Combination, object] = {}
        for combination, of_point in self.keys.items():
            others = combination[:axis] + combination[axis + 1 :]
            if keys.setdefault(others, of_point.get(name)) != of_point.get(name):
                return True
        return False

    def _require_difference(self, axis: Axis) -> None:
        position = self.axes.index(axis)
        for one, other in itertools.combinations(range(len(axis.choices)), 2):
            of_one = [keys for combination, keys in self.keys.items() if combination[position] == one]
            of_other = [keys for combination, keys in self.keys.items() if combination[position] == other]
            if of_one == of_other:
                names = f"{axis.choices[one].label} and {axis.choices[other].label}"
                why = "every stage may say otherwise for itself, or the command line does"
                raise RecipeError(f"{names} come to the same steps ({why}): leave one out", axis.place)


def _require_step(search: Search, recipe: Recipe) -> None:
    """Raises RecipeError for a metric of a step that the recipe has not."""
    name, names = search.metric.partition("/")[0], [step.name for step in recipe.steps]
    if name not in names:
        raise RecipeError(f"no step {name!r}{suggest(name, names)}", ("search", "metric"))


def _document(plain: Document, choices: Sequence[Choice], written: Document) -> Document:
    """The recipe with the values of a point, each of them from where it is `written`."""
    document = copy.deepcopy(plain)
    for change in (change for choice in choices for change in choice.changes):
        places = (change.place[:depth] for depth in range(len(change.place), 0, -1))
        place = next(place for place in places if place in written.origins)
        line = written.lines.get(place)
        document.set(change.path, copy.deepcopy(change.value), written.origins[place], line)
    return document


def _choices(axes: Sequence[Axis], combination: Combination) -> list[Choice]:
    return [axis.choices[index] for axis, index in zip(axes, combination, strict=True)]


def _values(choices: Sequence[Choice]) -> dict[str, object]:
    return {".".join(change.path): change.value for choice in choices for change in choice.changes}


def _keys(recipe: Recipe, combination: Combination) -> dict[str, object]:
    """What tells each step from others of its name; of one that nobody may look into, its point."""
    return {step.name: combination if step.key == UNKNOWN else step.key for step in recipe.steps}
