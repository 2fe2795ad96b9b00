"""Stages. A new one is one new file here: the YAML word is the file name, its fields are the YAML keys.

    # pipelines/stages/kto.py, used as `kind: kto`
    @dataclass(kw_only=True)
    class Kto(TrainerStage):
        model: trl.ModelConfig
        data: Annotated[Data, UNPAIRED]
        eval_data: Annotated[Data | None, UNPAIRED] = None
        train: trl.KTOConfig

        def run(self, step: Step) -> Metrics:
            return fit(trl.KTOTrainer, self, step)

What a kind is stands in its class, and no other file knows its word: the columns that it reads in the types of its
fields, what the report shows of it in `shows`, which keys leave the result alone in `neutral`, and what a shrunk run
changes in `small`. Modules here import trl's names through `trl.`, which loads lazily: planning imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import trl

from trimtab.pipelines.algorithms.schedules import ScheduleSettings
from trimtab.pipelines.data import promises
from trimtab.pipelines.data.audit import classes
from trimtab.pipelines.data.forms import PROMPTS, Data, Form, held_out_key
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting import trainers
from trimtab.pipelines.forecasting.work import Rows, Work
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning import field_types, schema
from trimtab.pipelines.planning.errors import Mistakes
from trimtab.pipelines.planning.identity import neutral_arguments
from trimtab.pipelines.planning.optimizer_blocks import OptimizerBlock
from trimtab.pipelines.recording.artifacts import Keep
from trimtab.pipelines.reporting.shows import Shows

if TYPE_CHECKING:
    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

Metrics = dict[str, float]
StepOptions = tuple[str, str, dict[str, Any]]  # (step name, kind, options)


@dataclass(kw_only=True)
class Stage:
    """One kind of step. It reads its inputs and leaves one artifact in `step.output`."""

    takes_stopped: ClassVar[bool] = (
        False  # whether it works on after a loop's stop (planning/stops.py), as a report does
    )
    neutral: ClassVar[tuple[str, ...]] = ()  # keys that cannot change the result: they are not in the fingerprint
    neutral_when_empty: ClassVar[tuple[str, ...]] = ()  # keys that are no part of the fingerprint while empty
    alike: ClassVar[Mapping[str, Mapping[str, str]]] = {}  # words of a key with the results of another of its words
    writes: ClassVar[tuple[str, ...]] = ()  # the columns of the dataset that it leaves, where that is its artifact
    splits: ClassVar[
        tuple[str, ...]
    ] = ()  # of the rows that it leaves: train alone where it has `writes` and no other
    head: ClassVar[Literal["words", "score"] | None] = None  # of the model that it leaves, where that is known
    shows: ClassVar[Shows] = Shows()
    starts: ClassVar[Start | None] = None  # how a first recipe begins with it, where one does
    cuts_by_tokens: ClassVar[bool] = False  # whether its trainer cuts steps by tokens (trainers/micro_batches.py)

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterable[StepOptions]:
        """The steps that the stage stands for; `$name` means the last of them.

        Among a step's options, `seed_offset` is added to the seed: the repeats of one thing differ in it. `above`
        holds the names that may be referred to. A plain stage is one step; a macro gives several, from its own fields
        as `as_written` has read them.
        """
        yield name, kind, options

    @classmethod
    def check_required(cls, name: str, options: dict[str, Any], numbers: Collection[str]) -> None:
        """Raises RecipeError for numbers in `require` that the stage will not leave, as far as that is certain."""

    @classmethod
    def neutral_inside(cls, key: str, block: Mapping[str, Any]) -> Collection[str]:
        """The keys inside a block of the stage that cannot change the result."""
        return ()

    @classmethod
    def by_micro_batch(cls, train: Mapping[str, Any]) -> bool:
        """Whether a row's loss depends on the others of its micro-batch, whose size then is in the fingerprint."""
        return False

    @classmethod
    def takes_prompts(cls) -> bool:
        """Whether its `data` are prompts: where it trains, it draws the answers itself."""
        return PROMPTS in field_types.notes(field_types.hints(cls).get("data"))

    @classmethod
    def as_written(cls, name: str, options: dict[str, Any]) -> Self:
        """A macro's own fields: required keys, types and defaults are those of the annotations."""
        return schema.as_written(cls, options, ("stages", name))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        """What a shrunk run changes in a block of this kind, as `key.subkey` -> value.

        By default what the types of the fields say: models, data, training arguments, rewards and sampling.
        """
        return miniature.changes(cls, block)

    def reads(self) -> dict[str, Form]:
        """The form of the rows that each `Data` field takes."""
        noted = {key: field_types.notes(hint) for key, hint in field_types.hints(type(self)).items()}
        forms = {key: [note for note in notes if isinstance(note, Form)] for key, notes in noted.items()}
        return {key: given[0] for key, given in forms.items() if given}

    def held_out(self, key: str) -> Any:
        """The rows by which what comes of those at a key is judged; None where the stage has none."""
        return getattr(self, held_out_key(key), None)

    def audit_of(self, step: Step) -> Audit:
        """The audit that the step's data goes through."""
        from trimtab.pipelines.data.audit.checking import Audit

        return Audit(step)

    def check(self, step: Step) -> None:
        """Looks at the inputs that exist already, before anything expensive. Raises RecipeError.

        Here, all data by their forms. A subclass checks its own keys and then calls this.
        """
        from trimtab.pipelines.data.audit.checking import Audit

        mistakes = Mistakes()
        audit = Audit(step)
        with mistakes.collected():
            audit = self.audit_of(step)
        for key, form in self.reads().items():
            for place, block in _blocks(key, getattr(self, key)):
                with mistakes.collected():
                    promises.check_columns(block, step, place, form)
                    audit.check(block, place, form, self.held_out(key))
        mistakes.raise_any()

    def check_columns(self, step: Step) -> None:
        """Looks only at the columns of the data that is here: the cheap part of `check`. Raises RecipeError."""
        from trimtab.pipelines.data.audit import sources

        mistakes = Mistakes()
        for key, form in self.reads().items():
            for place, block in _blocks(key, getattr(self, key)):
                with mistakes.collected():
                    sources.check_columns(block, step, place, form)
        mistakes.raise_any()

    def work(self, known: Known) -> Work:
        """What a step of it asks of a machine, for the forecast. Here, to go through its rows one by one."""
        blocks = [(key, block) for key in self.reads() for _, block in _blocks(key, getattr(self, key))]
        return Work(handled=sum(known.rows(key, block).count for key, block in blocks))

    def makes(self) -> Any:
        """What its artifact has the sizes of: a model, by block, name or configuration; None where it is no model."""
        return None

    def folders(self) -> Collection[str] | None:
        """The folders inside its artifact, by which `$stage/folder` names them; None where that cannot be said."""
        return None

    def leaves(self, known: Known, folder: str, split: str) -> Rows | None:
        """The rows that it will leave in a folder of its artifact, as far as that can be said before it runs."""
        return None

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        """What is certain of the rows in a folder of its artifact before it runs. Here, nothing."""
        return Promise()

    def run(self, step: Step) -> Metrics:
        """Writes the artifact into the folder `step.output` and returns the step's metrics. Every rank calls it."""
        raise TypeError(f"{type(self).__name__} is a macro: it has no step of its own")


@dataclass(kw_only=True)
class TrainerStage(Stage):
    """A stage that trains `model` on `data` with a trainer of trl's kind, whose configuration is `train`.

    `audit` says what follows from rows that are not right, class by class: see docs/data.md. A training that leaves
    every weight as it was, or whose gradient was 0 in every step, is an error, but for a control with
    `must_learn: false`. When it is done, `keep: final` keeps the complete model alone, `adapter` also what LoRA has
    trained, and `all` the checkpoints too. `dtype` is that of the model which is kept, by default the trained one's.
    `schedule: {refine: $earlier}` makes the learning rate of the gradient norms of an earlier training.
    `optimizer` names one by its class in the place of `train.optim`, `keep_optimizer` keeps its state beside the
    model, and `optimizer: $that_stage`, or `state: $that_stage` in its block, begins with it: docs/optimizers.md.
    """

    head: ClassVar[Literal["words", "score"] | None] = "words"
    neutral: ClassVar[tuple[str, ...]] = ("must_learn", "keep")
    neutral_when_empty: ClassVar[tuple[str, ...]] = ("audit", "schedule", "dtype", "optimizer", "keep_optimizer")

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    audit: classes.Actions = field(default_factory=dict)
    train: Any
    schedule: ScheduleSettings | None = None
    optimizer: OptimizerBlock = None
    keep_optimizer: bool = False
    must_learn: bool = True
    keep: Keep = "all"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None

    def __post_init__(self) -> None:
        """Makes the rows that `eval_fraction` keeps apart those to evaluate on. Raises ValueError for others."""
        if getattr(self.data, "eval_fraction", None) is None:
            return
        if self.eval_data is None:
            self.eval_data = replace(self.data, side="eval")
        elif getattr(self.eval_data, "side", "train") == "train":
            raise ValueError(
                "`eval_fraction` in `data` and `eval_data` both name rows to evaluate on: give one of the two"
            )

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        same_rows = {"audit.overlap": "warn"} if block.get("eval_data") else {}
        return {**super().small(block, miniature), **same_rows, "must_learn": False}  # a shrunk run shows that it runs

    @classmethod
    def neutral_inside(cls, key: str, block: Mapping[str, Any]) -> Collection[str]:
        if key == "audit":
            return classes.neutral(block)
        return neutral_arguments(block) if key == "train" else ()

    def audit_of(self, step: Step) -> Audit:
        from trimtab.pipelines.training import inputs

        room = (getattr(self.train, "max_completion_length", None) or 1) if self.takes_prompts() else None
        audit = inputs.audit(self.model, self.train, self.audit, step, room=room)
        if not hasattr(self, "rewards"):
            return audit
        from trimtab.pipelines.scoring import readers
        from trimtab.pipelines.training import lineage

        return readers.added(audit, self.rewards, lineage.ahead)

    def work(self, known: Known) -> Work:
        return trainers.work(self, known)

    def makes(self) -> Any:
        return self.model

    def folders(self) -> Collection[str] | None:
        return ("critic", "optimizer")  # of some kinds, and where they are kept

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return Promise() if folder else Promise(columns=())  # a model, and no rows

    def check(self, step: Step) -> None:
        from trimtab.pipelines.training import arguments, dry, earlier_norms, optimizers, warm_starts

        mistakes = Mistakes()
        for look in (arguments.check_arguments, dry.check, optimizers.check, warm_starts.check):
            with mistakes.collected():
                look(self, step)
        if self.schedule is not None:
            with mistakes.collected():
                earlier_norms.check(self, step)
        with mistakes.collected():
            super().check(step)
        mistakes.raise_any()


def _blocks(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(place, data block) of what a field holds: one, none, or several by name or in a list."""
    if isinstance(value, Mapping):
        for name, block in value.items():
            yield f"{key}.{name}", block
    elif isinstance(value, list):
        for index, block in enumerate(value):
            yield f"{key}.{index}", block
    elif value is not None:
        yield key, value
