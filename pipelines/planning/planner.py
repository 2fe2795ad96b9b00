"""The way from a recipe's YAML to its steps: stages from top to bottom, macros into steps, references into places."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import (
    batch,
    bounds,
    consent,
    field_types,
    kinds,
    optimizer_blocks,
    preflight,
    schema,
    store,
)
from trimtab.pipelines.planning.defaults import Defaults
from trimtab.pipelines.planning.document import Document
from trimtab.pipelines.planning.errors import RENAMED, RecipeError, nearest, suggest
from trimtab.pipelines.planning.files import fingerprint
from trimtab.pipelines.planning.identity import Identities, source
from trimtab.pipelines.planning.ranks import Ranks
from trimtab.pipelines.planning.recipe import Recipe, Step
from trimtab.pipelines.planning.references import UNKNOWN, References, absent
from trimtab.pipelines.planning.store import STEPS, Store

KEYS = ("name", "seed", "output_dir", "wandb", "inputs", "defaults", "stages", "sweep", "arms", "search")
HANDED_ON = (optimizer_blocks.KEY, "schedule")  # keys of all trainings, which a macro hands on to its own
WANDB = ("project", "entity", "group", "tags", "log_models")
NAME = re.compile(r"^[A-Za-z][\w-]*$")


class Planner:
    """Walks the stages from top to bottom, keeping the steps made so far."""

    def __init__(self, document: Document, overrides: tuple[str, ...], ranks: Ranks):
        self.document, self.overrides, self.values = document, overrides, document.values
        self.ranks = ranks
        self.mistakes = document.mistakes
        for key in self.values:
            if key not in KEYS:
                self.mistakes.add(RecipeError(f"unknown key for a recipe{suggest(key, KEYS)}", (key,)))
        self.name: str = self._top("name", str, Path(document.path).stem)
        if not NAME.match(self.name):
            self.mistakes.add(RecipeError(f"{self.name!r} is not a name: letters, digits, _ and -", ("name",)))
        self.seed: int = self._top("seed", int, 42)
        if self.name == STEPS:
            taken = RecipeError(f"{STEPS!r} is where the steps of all recipes lie: choose another", ("name",))
            self.mistakes.add(taken)
        self.store = Store(Path(self._top("output_dir", str, "runs")).expanduser())
        self.run = self.store.root / self.name
        self.defaults = Defaults(document, self._top("defaults", dict, {}))
        self.steps: dict[str, Step] = {}
        self.references = References(document, self._top("inputs", dict, {}))
        self.identities = Identities(self.references)

    def plan(self) -> Recipe:
        """The whole recipe. Raises RecipeError for all that is wrong, without file and line: the document knows them.

        Where something is, the keys and types of every step are looked at too, so that one look finds them all.
        """
        stages = self._top("stages", dict, {})
        wandb = self._wandb()
        if not stages:
            self.mistakes.add(RecipeError("a recipe needs at least one stage", ("stages",)))
        for name in stages:
            with self.mistakes.collected():
                self._stage(name)
            self.references.steps.setdefault(name, absent(str(name)))
        for mistake in self.defaults.mistakes():
            self.mistakes.add(mistake)
        if self.mistakes.kept:
            preflight.look(self.steps.values(), self.mistakes)
        self.mistakes.raise_any()
        return Recipe(
            name=self.name,
            path=self.document.path,
            overrides=self.overrides,
            run=self.run,
            wandb=wandb,
            steps=tuple(self.steps.values()),
            document=self.document,
            ranks=self.ranks,
            skipped=tuple(self.defaults.notes()),
        )

    def _top(self, key: str, kind: Any, default: Any) -> Any:
        return self._value(self.values, key, kind, default, (key,))

    def _value(self, block: dict[str, Any], key: str, kind: Any, default: Any, path: tuple[str, ...]) -> Any:
        """The value of a key, as its type; the default where there is none, or a wrong one."""
        value = block.get(key)
        if value is not None:
            with self.mistakes.collected():
                return schema.coerce(value, kind, path)
        return default

    def _wandb(self) -> dict[str, Any] | None:
        settings = self._top("wandb", dict | bool, {})
        if isinstance(settings, bool):
            return {} if settings else None
        for key in settings:
            if key not in WANDB:
                message = f"unknown key{suggest(key, WANDB)} (known: {', '.join(WANDB)})"
                self.mistakes.add(RecipeError(message, ("wandb", key)))
        return settings

    def _stage(self, name: Any) -> None:
        path = ("stages", name)
        block = self._block(name)
        kind = block.get("kind", name)
        if kinds.is_withheld(kinds.STAGES, kind):
            self._withheld(name, kind, block)
            return
        cls = kinds.find(kinds.STAGES, kind, (*path, "kind") if "kind" in block else path)
        keys = {field.name for field in dataclasses.fields(cls)}
        of_trainings = {*batch.KEYS, *HANDED_ON} if field_types.trains(cls) else set()
        of_any = {"accelerate", "seed", *of_trainings}
        known = {"kind", bounds.KEY, *of_any, *keys}
        # the batch of trainings, whatever a stage that does not train calls so
        self.defaults.merge(cls, name, block, (keys - {"batch_size"}) | of_any)
        for key in block:  # before a macro meets them
            if key not in known:
                hint = f": {RENAMED[key]}" if key in RENAMED else suggest(key, known)
                self.mistakes.add(RecipeError(f"unknown key for kind {kind!r}{hint}", (*path, key)))
        options = {nearest(key, keys) or key: value for key, value in block.items() if key not in known}
        options = {key: value for key, value in {**options, **block}.items() if key in keys}
        accelerate = self._value(block, "accelerate", str, "auto", (*path, "accelerate"))
        seed = self._value(block, "seed", int, self.seed, (*path, "seed"))
        counts = (self._value(block, key, int, None, (*path, key)) for key in batch.KEYS)
        asked = batch.Asked(*counts) if of_trainings else batch.Asked()
        last = None
        handed_on = {key: block[key] for key in HANDED_ON if key not in keys and block.get(key)}
        for step_name, step_kind, step_options in self._expanded(cls, name, kind, options):
            if handed_on and field_types.training(kinds.find(kinds.STAGES, step_kind, path)):
                step_options = handed_on | step_options
            if step_name in self.references.steps:
                raise RecipeError(f"two steps are called {step_name!r}: rename the stage", path)
            offset = step_options.pop("seed_offset", 0)
            last = self._step(step_name, name, step_kind, step_options, seed + offset, accelerate, asked)
        if last is not None:
            self.references.steps[name] = last  # what `$name` means: the last step of a macro
        elif not self.mistakes.kept:
            raise RecipeError(f"kind {kind!r} has expanded to no step", path)
        if last is not None and bounds.KEY not in keys:
            required = self._value(block, bounds.KEY, dict[str, bounds.Bound], {}, (*path, bounds.KEY))
            self._require(cls, name, options, required, accelerate)

    def _require(
        self, cls: Any, name: str, options: dict[str, Any], required: dict[str, str], accelerate: str
    ) -> None:
        """Behind a stage of which numbers are required, the step that holds them against its own."""
        if required:
            cls.check_required(name, options, required)
            gate = {"step": f"${name}", bounds.KEY: required}
            self._step(f"{name}-{bounds.KEY}", name, bounds.KEY, gate, self.seed, accelerate, batch.Asked())

    def _withheld(self, name: str, kind: str, block: dict[str, Any]) -> None:
        """Plans a stage whose class nobody has consented to import as one step, with its keys as they are."""
        path = ("stages", name)
        kinds.look(kinds.STAGES, kind, (*path, "kind"))
        accelerate = self._value(block, "accelerate", str, "auto", (*path, "accelerate"))
        seed = self._value(block, "seed", int, self.seed, (*path, "seed"))
        options = {key: value for key, value in block.items() if key not in ("kind", "accelerate", "seed")}
        self._step(name, name, kind, options, seed, accelerate, batch.Asked())

    def _expanded(self, cls: Any, name: str, kind: str, options: dict[str, Any]) -> list[Any]:
        """The steps of a stage; where some of its keys are wrong, those that it has without them, if any."""
        above = tuple(self.references.steps)
        try:
            return list(cls.expand(name, kind, options, above))
        except RecipeError as error:
            self.mistakes.add(error)
            wrong = {key for mistake in error.mistakes for key in mistake.path[2:3]}
        try:
            return list(cls.expand(name, kind, {key: options[key] for key in options if key not in wrong}, above))
        except RecipeError:  # of what is missing now
            return []

    def _block(self, name: Any) -> dict[str, Any]:
        path = ("stages", name)
        if not isinstance(name, str) or not NAME.match(name):
            raise RecipeError(f"{name!r} is not a stage name: letters, digits, _ and -", path)
        if self.values["stages"][name] is None:
            self.document.set(path, {}, self.document.origins[path])
        block = self.values["stages"][name]
        if not isinstance(block, dict):
            raise RecipeError(f"expected a mapping, got {block!r}", path)
        return block

    def _step(
        self,
        name: str,
        stage: str,
        kind: str,
        options: dict[str, Any],
        seed: int,
        accelerate: str,
        asked: batch.Asked,
    ) -> Step:
        path = ("stages", stage)
        cls = None if kinds.is_withheld(kinds.STAGES, kind) else kinds.find(kinds.STAGES, kind, path)
        options, of_step = self._batch(cls, options, asked, accelerate, path)
        inputs: dict[str, Step] = {}
        resolved = self.references.resolve(options, path, inputs)
        identity: dict[str, Any] = {}
        identifier = key = UNKNOWN  # where code that it depends on may not be looked into
        folder = self.run / f"{name}-{UNKNOWN}"
        unseen = consent.withheld(consent.code_in({**resolved, "kind": kind}, path, kinds.STAGES))
        if not unseen and all(above.fingerprint != UNKNOWN for above in inputs.values()):
            identity = {
                "kind": source(kinds.STAGES, kind),
                "seed": seed,
                "options": self.identities.of_options(cls, options, path, of_step),
            }
            key = store.key(identity, (above.key for above in inputs.values()))
            identifier, folder = fingerprint(identity), self.store.folder(kind, key)
        step = Step(
            name=name,
            stage=stage,
            kind=kind,
            options=resolved,
            seed=seed,
            accelerate=accelerate,
            fingerprint=identifier,
            dir=folder,
            output=folder / "output",
            inputs=tuple(inputs.values()),
            identity=identity,
            batch=of_step,
            recipe=self.name,
            key=key,
            view=self.run / name,
        )
        self.steps[name] = self.references.steps[name] = step
        return step

    def _batch(
        self, cls: Any, options: dict[str, Any], asked: batch.Asked, accelerate: str, path: tuple[str, ...]
    ) -> tuple[dict[str, Any], batch.Batch | None]:
        """The batch of a step that trains, and its options with what makes that up on the ranks that it will have."""
        if cls is None or field_types.training(cls) is None:
            return options, None
        ranks = self.ranks.of(accelerate)
        if asked == batch.Asked():
            return options, batch.of_keys(cls, options, ranks)
        return batch.derived(cls, options, asked, ranks, path)
