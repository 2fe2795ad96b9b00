"""A recipe (one YAML file) is a plan: a flat tuple of steps, the same in every process that reads it.

    name: tiny                      # runs/tiny; the file's name when left out
    seed: 42
    output_dir: runs
    wandb: {project: trimtab}       # or false
    inputs: {pairs: my/pairs.jsonl} # names for things from outside, used as $pairs
    defaults: {train: {...}}        # merged under every stage that has the block; the stage wins
    sweep: {seed: [1, 2, 3]}        # and `arms`: the recipe with other values (see planning/points.py)
    stages:
      sft: {model: {...}, data: ..., train: {...}}
      helpful: {kind: reward, model: {model_name_or_path: $sft}, ...}

A value `$name` or `$name/folder` stands for the artifact of a stage above, or for an input, and `$name.word` for a
number in its thresholds.json. A step's fingerprint covers its kind, seed, options (our defaults included), the
content of the local files it names and the fingerprints of the steps it refers to. Planning imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.batch import Batch
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.stops import stopped

if TYPE_CHECKING:
    from trimtab.pipelines.planning.points import Point
    from trimtab.pipelines.planning.search import Study


@dataclass(frozen=True)
class Launch:
    """What a step will be launched on."""

    processes: int
    on_cpu: bool


@dataclass(frozen=True)
class Step:
    """One launch: what to run, on which inputs, and where the result goes."""

    name: str  # "evaluate-dpo-sample"
    stage: str  # the key under `stages` that it came from: "evaluate"
    kind: str  # a file in pipelines/stages: "sample"
    options: dict[str, Any]  # the block, every $reference already a path
    seed: int
    accelerate: str  # a file in accelerate_configs, or "auto"
    fingerprint: str
    dir: Path  # runs/steps/<kind>-<key>, whatever the recipe and the step are called (see planning/store.py)
    output: Path  # the artifact; while the step runs, the folder to write it in
    inputs: tuple[Step, ...] = field(repr=False)  # the steps it refers to
    identity: dict[str, Any] = field(default_factory=dict, repr=False)  # what the fingerprint is of
    batch: Batch | None = field(default=None, compare=False)  # of one that trains, and how this launch makes it up
    launch: Launch | None = field(default=None, compare=False)  # where it is looked at before a launch, and known
    recipe: str = field(default="", compare=False)  # the name of the recipe in which it is planned
    key: str = ""  # begins with the fingerprint
    view: Path = field(default=Path(), compare=False)  # runs/<recipe>/<name>, a link to `dir`
    point: str = ""  # of a sweep: the values by which it differs from steps of its name in other points
    varied: dict[str, Any] = field(default_factory=dict, compare=False)  # these values, by their paths

    @property
    def path(self) -> tuple[str, str]:
        """Where the recipe speaks of it, for error messages."""
        return ("stages", self.stage)

    @property
    def written(self) -> str:
        """Its name in the recipe, which steps of other points have too."""
        return self.name.removesuffix(f"@{self.point}")

    @property
    def done(self) -> bool:
        """Whether its artifact is published, and a look finds it whole."""
        return finished.damage(self.dir, self.fingerprint) == ()

    @property
    def damage(self) -> tuple[str, ...]:
        """A sentence for each file of its published artifact that is not what it was (see planning/finished.py)."""
        return finished.damage(self.dir, self.fingerprint) or ()

    @property
    def state(self) -> str:
        """Whether it is done, damaged or pending, in that word."""
        damage = finished.damage(self.dir, self.fingerprint)
        if damage is None:
            return "pending"
        return "damaged" if damage else "done"

    @property
    def waiting(self) -> tuple[Step, ...]:
        """The steps that must be run first."""
        return tuple(step for step in self.inputs if not step.done)

    @property
    def stop_reasons(self) -> list[str]:
        """Why it is not to be made, from the notes in its inputs (see planning/stops.py)."""
        notes = [stopped(step.output) for step in self.inputs if step.done]
        return [reason for reason in notes if reason]

    def pending(self, path: str | None) -> bool:
        """Whether `path` lies in the artifact of a step that is not done yet."""
        return path is not None and any(Path(path).is_relative_to(step.output) for step in self.waiting)

    def maker(self, path: str) -> Step | None:
        """The step among its inputs in whose artifact a path lies."""
        return next((source for source in self.inputs if Path(path).is_relative_to(source.output)), None)


@dataclass(frozen=True)
class Recipe:
    """A plan and what it was read from."""

    name: str
    path: str
    overrides: tuple[str, ...]
    run: Path  # runs/<name>
    wandb: dict[str, Any] | None
    steps: tuple[Step, ...]
    document: Document = field(repr=False)
    ranks: Ranks = field(default_factory=Ranks)  # on which it was planned
    skipped: tuple[str, ...] = ()  # a line for each default that does not fit some stage
    points: tuple[Point, ...] = field(default=(), repr=False)  # of a sweep; `steps` are those of all points, each once

    study: Study | None = field(default=None, repr=False)  # of a search, whose trials are points

    @classmethod
    def load(cls, path: str, overrides: Sequence[str] = (), ranks: Ranks | None = None) -> Recipe:
        """Reads, overrides, expands macros and resolves references. Raises RecipeError; writes nothing.

        `ranks` says how many each step runs on, by default as many as there are in the process group of this process.
        """
        from trimtab.pipelines.planning.grid import plan

        document = Document.sketched(path, overrides)
        try:
            return plan(document, tuple(overrides), ranks or Ranks.here())
        except RecipeError as error:
            raise document.locate(error) from None

    def heading(self, step: Step) -> str:
        """The line above what a step says while it runs."""
        return f"[{self.steps.index(step) + 1}/{len(self.steps)}] {step.name} ({step.kind}) {step.fingerprint}"

    def select(self, only: str | Sequence[str] | None = None, start: str | None = None) -> tuple[Step, ...]:
        """The steps of one stage or several, `only`, or those from stage `start` on, or all.

        A stage is named by its name, or by that of one of its steps. Raises RecipeError for a name of none.
        """
        names = [step.name for step in self.steps]
        chosen = {only} if isinstance(only, str) else set(only or ())
        for word in filter(None, (*sorted(chosen), start)):
            stages = [step.stage for step in self.steps]
            if word not in names and word not in stages:
                raise RecipeError(f"{self.path}: no stage {word!r}{suggest(word, dict.fromkeys([*stages, *names]))}")
        steps = self.steps
        if start:
            first = next(i for i, step in enumerate(steps) if start in (step.name, step.stage))
            steps = steps[first:]
        return tuple(step for step in steps if not chosen or chosen & {step.name, step.stage})
