"""A recipe (one YAML file) becomes a plan: a flat tuple of steps, the same in every process that reads it.

    name: tiny                      # runs/tiny; the file's name when left out
    seed: 42
    output_dir: runs
    wandb: {project: trimtab}       # or false
    inputs: {pairs: my/pairs.jsonl} # names for things from outside, used as $pairs
    defaults: {train: {...}}        # merged under every stage that has the block; the stage wins
    stages:
      sft: {model: {...}, data: ..., train: {...}}
      helpful: {kind: reward, model: {model_name_or_path: $sft}, ...}

A value `$name` or `$name/folder` stands for the artifact of a stage above, or for an input, and `$name.word` for a
number in its thresholds.json. A step's fingerprint
covers its kind, seed, options (our defaults included), the content of the local files it names and the fingerprints of
the steps it refers to.
This module imports no torch.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import artifacts, plugins
from pipelines.document import Document
from pipelines.errors import RENAMED, RecipeError, suggest

KEYS = ("name", "seed", "output_dir", "wandb", "inputs", "defaults", "stages")
REFERENCE = re.compile(r"^\$([A-Za-z][\w-]*)((?:/[\w.-]+)*|\.[A-Za-z][\w-]*)$")
NAME = re.compile(r"^[A-Za-z][\w-]*$")


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
    dir: Path  # runs/<recipe>/<name>-<fingerprint>
    output: Path  # the artifact; while the step runs, the folder to write it in
    inputs: tuple[Step, ...] = field(repr=False)  # the steps it refers to
    identity: dict[str, Any] = field(default_factory=dict, repr=False)  # what the fingerprint is of

    @property
    def path(self) -> tuple[str, str]:
        """Where the recipe speaks of it, for error messages."""
        return ("stages", self.stage)

    @property
    def done(self) -> bool:
        return (self.dir / "done.json").exists()

    @property
    def waiting(self) -> tuple[Step, ...]:
        """The steps that must be run first."""
        return tuple(step for step in self.inputs if not step.done)

    def pending(self, path: str | None) -> bool:
        """Whether `path` lies in the artifact of a step that is not done yet."""
        return path is not None and any(Path(path).is_relative_to(step.output) for step in self.waiting)


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

    @classmethod
    def load(cls, path: str, overrides: Sequence[str] = ()) -> Recipe:
        """Reads, overrides, expands macros and resolves references. Raises RecipeError; writes nothing."""
        document = Document.read(path, overrides)
        try:
            return _Planner(document, tuple(overrides)).plan()
        except RecipeError as error:
            raise document.locate(error) from None

    def select(self, only: str | None = None, start: str | None = None) -> tuple[Step, ...]:
        """The steps of stage `only`, or those from stage `start` on (a stage or a step name), or all."""
        names = [step.name for step in self.steps]
        for word in filter(None, (only, start)):
            stages = [step.stage for step in self.steps]
            if word not in names and word not in stages:
                raise RecipeError(f"{self.path}: no stage {word!r}{suggest(word, dict.fromkeys([*stages, *names]))}")
        steps = self.steps
        if start:
            first = next(i for i, step in enumerate(steps) if start in (step.name, step.stage))
            steps = steps[first:]
        return tuple(step for step in steps if only in (None, step.name, step.stage))


class _Planner:
    """Walks the stages top to bottom, keeping the steps made so far."""

    def __init__(self, document: Document, overrides: tuple[str, ...]):
        self.document, self.overrides, self.values = document, overrides, document.values
        self.steps: dict[str, Step] = {}
        self.artifacts: dict[str, Step] = {}  # what `$name` means: a step, or the last step of a macro

    def plan(self) -> Recipe:
        for key in self.values:
            if key not in KEYS:
                raise RecipeError(f"unknown key for a recipe{suggest(key, KEYS)}", (key,))
        self.name = self._top("name", str, Path(self.document.path).stem)
        if not NAME.match(self.name):
            raise RecipeError(f"{self.name!r} is not a name: letters, digits, _ and -", ("name",))
        self.seed = self._top("seed", int, 42)
        self.run = Path(self._top("output_dir", str, "runs")).expanduser() / self.name
        self.inputs = self._top("inputs", dict, {})
        defaults = self._top("defaults", dict, {})
        stages = self._top("stages", dict, {})
        if not stages:
            raise RecipeError("a recipe needs at least one stage", ("stages",))
        for name in stages:
            self._stage(name, defaults)
        return Recipe(
            name=self.name,
            path=self.document.path,
            overrides=self.overrides,
            run=self.run,
            wandb=self._wandb(),
            steps=tuple(self.steps.values()),
            document=self.document,
        )

    def _top(self, key: str, kind: type, default: Any) -> Any:
        value = self.values.get(key)
        return default if value is None else plugins.coerce(value, kind, (key,))

    def _wandb(self) -> dict[str, Any] | None:
        if self.values.get("wandb") is False:
            return None
        settings = self._top("wandb", dict, {})
        for key in settings:
            if key not in (known := ("project", "entity", "group", "tags", "log_models")):
                raise RecipeError(f"unknown key{suggest(key, known)} (known: {', '.join(known)})", ("wandb", key))
        return settings

    def _stage(self, name: str, defaults: dict[str, Any]) -> None:
        path = ("stages", name)
        if not isinstance(name, str) or not NAME.match(name):
            raise RecipeError(f"{name!r} is not a stage name: letters, digits, _ and -", path)
        if self.values["stages"][name] is None:
            self.document.set(path, {}, self.document.origins[path])
        block = self.values["stages"][name]
        if not isinstance(block, dict):
            raise RecipeError(f"expected a mapping, got {block!r}", path)
        kind = block.get("kind", name)
        cls = plugins.find("pipelines.stages", kind, (*path, "kind") if "kind" in block else path)
        keys = {"accelerate", "seed", *cls.__dataclass_fields__}
        for key in defaults:
            if key in keys:
                if isinstance(defaults[key], dict) and isinstance(block.setdefault(key, {}), dict):
                    self.document.merge((*path, key), ("defaults", key))
                elif key not in block:
                    self.document.set((*path, key), defaults[key], "defaults", self.document.lines["defaults", key])
        options = {key: value for key, value in block.items() if key != "kind"}
        accelerate = plugins.coerce(options.pop("accelerate", "auto"), str, (*path, "accelerate"))
        seed = plugins.coerce(options.pop("seed", self.seed), int, (*path, "seed"))
        for key in options:  # before a macro meets them
            if key not in cls.__dataclass_fields__:
                hint = f": {RENAMED[key]}" if key in RENAMED else suggest(key, keys)
                raise RecipeError(f"unknown key for kind {kind!r}{hint}", (*path, key))
        for step_name, step_kind, step_options in cls.expand(name, kind, options, tuple(self.artifacts)):
            if step_name in self.artifacts:
                raise RecipeError(f"two steps are called {step_name!r}: rename the stage", path)
            offset = step_options.pop("seed_offset", 0)
            self._step(step_name, name, step_kind, step_options, seed + offset, accelerate)
        self.artifacts[name] = self.steps[step_name]

    def _step(self, name: str, stage: str, kind: str, options: dict, seed: int, accelerate: str) -> None:
        inputs: dict[str, Step] = {}
        resolved = self._resolve(options, ("stages", stage), inputs)
        cls = plugins.find("pipelines.stages", kind, ("stages", stage))
        defaults = {key: plugins.default(spec) for key, spec in cls.__dataclass_fields__.items()}
        identity = {
            "kind": self._source("pipelines.stages", kind),
            "seed": seed,
            "options": self._identity({**defaults, **options}, ("stages", stage)),  # a new default is a new step
        }
        mark = artifacts.fingerprint(identity)
        folder = self.run / f"{name}-{mark}"
        step = Step(name, stage, kind, resolved, seed, accelerate, mark, folder, folder / "output",
                    tuple(inputs.values()), identity)  # fmt: skip
        self.steps[name] = self.artifacts[name] = step

    def _refer(self, text: str, path: tuple[str, ...]) -> tuple[Step | str, str]:
        match = REFERENCE.match(text)
        if not match:
            raise RecipeError(
                f"{text!r} is not a reference: write $stage, $stage/folder or $stage.number (and $$ for a dollar)",
                path,
            )
        name, folder = match.groups()
        folder = f"/thresholds.json#{folder[1:]}" if folder.startswith(".") else folder
        if name in self.artifacts:
            self._check_number(self.artifacts[name], folder, path)
            return self.artifacts[name], folder
        if name in self.inputs:
            return plugins.coerce(self.inputs[name], str, ("inputs", name)), folder
        stages = self.values["stages"]
        if name == path[1]:
            raise RecipeError(f"{text!r} refers to the stage itself", path)
        if name in stages:
            line = self.document.lines.get(("stages", name), "?")
            raise RecipeError(f"{text!r} is below (line {line}): a stage refers only to stages above it", path)
        known = [*self.artifacts, *self.inputs]
        raise RecipeError(
            f"no stage or input {name!r} above{suggest(name, known)} (there are: {', '.join(known) or 'none'})", path
        )

    def _check_number(self, step: Step, folder: str, path: tuple[str, ...]) -> None:
        """A step finds thresholds of its `rewards`: others are a mistake that is known before it runs."""
        known, word = step.options.get("rewards"), folder.partition("#")[2]
        if word and known is not None and word not in known:
            raise RecipeError(
                f"{step.name} has no reward {word!r}{suggest(word, known)} (it has: {', '.join(known)})", path
            )

    def _resolve(self, value: Any, path: tuple[str, ...], inputs: dict[str, Step]) -> Any:
        if isinstance(value, dict):
            return {key: self._resolve(item, (*path, str(key)), inputs) for key, item in value.items()}
        if isinstance(value, list):
            return [self._resolve(item, (*path, str(i)), inputs) for i, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith("$"):
            return value
        if value.startswith("$$"):
            return value[1:]
        target, folder = self._refer(value, path)
        if isinstance(target, Step):
            inputs[target.name] = target
            return str(target.output) + folder
        return target + folder

    def _identity(self, value: Any, path: tuple[str, ...]) -> Any:
        """What of the options determines the result: content instead of place, fingerprints instead of references."""
        if isinstance(value, dict):
            plugin = isinstance(value.get("kind"), str) and len(path) > 2  # a block inside a stage is a reward's
            skip = artifacts.neutral(value) if path[-1] == "train" else artifacts.NEUTRAL_REWARD if plugin else ()
            entries = {k: self._identity(v, (*path, str(k))) for k, v in value.items() if k not in skip}
            if plugin:
                entries["kind"] = self._source("rewards", value["kind"])
                if value["kind"].endswith("_function") and isinstance(value.get("path"), str):
                    entries["path"] = self._function(value["path"])
            return entries
        if isinstance(value, list):
            return [self._identity(item, (*path, str(i))) for i, item in enumerate(value)]
        if isinstance(value, str) and value.startswith("$") and not value.startswith("$$"):
            target, folder = self._refer(value, path)
            if isinstance(target, Step):
                return {"step": target.fingerprint, "folder": folder}
            value = target + folder
        if isinstance(value, str) and artifacts.is_local(value.partition("#")[0]):
            file, _, word = value.partition("#")
            return {"sha256": artifacts.content_hash(file), **({"word": word} if word else {})}
        return value

    def _function(self, path: str) -> Any:
        """The identity of a function from outside, `file.py:name` or dotted: its name and its source file."""
        file, _, name = path.partition(":")
        if artifacts.is_local(file):
            return {"word": name, "sha256": artifacts.content_hash(file)}
        return self._source("", path) if "." in path and "/" not in path else path

    def _source(self, package: str, word: str) -> Any:
        """A plug-in's identity: its word, and for rewards and for code from outside also its source file."""
        if "." not in word and package == "pipelines.stages":
            return word
        module = word.rpartition(".")[0] if "." in word else f"{package}.{word}"
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None  # the check of the block says so, with its place
        file = Path(spec.origin) if spec and spec.origin else None
        return {"word": word, "sha256": artifacts.content_hash(file)} if file and file.is_file() else word
