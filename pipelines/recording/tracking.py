"""Metrics of the running step: a JSONL file that is always there, and wandb beside it.

The file is the record of truth: `metrics.jsonl` in the step's directory, one line per call, flushed. wandb gets the
same numbers as one run per step (id from the fingerprint, so a resumed step continues its run), grouped by recipe,
job type = kind, with its inputs and its artifact by reference. In a sweep the job type is the stage, and a run has the
name and the values of its point. It is offline unless a key or WANDB_MODE says
otherwise. Nothing that wandb does or fails to do reaches the step.
"""

from __future__ import annotations

import contextlib
import json
import logging
import netrc
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.planning import finished
from trimtab.pipelines.planning.files import write_atomically
from trimtab.pipelines.recording.artifacts import versions

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Recipe, Step

logger = logging.getLogger(__name__)
VERBOSE = "TRIMTAB_VERBOSE"  # the environment variable by which every number of every log is printed
SECRET = re.compile(r"(^|_)(token|key|secret|password)$", re.IGNORECASE)
_current: _Tracker | None = None


def start(step: Step, recipe: Recipe, main: bool) -> None:
    """Opens the step's record; on ranks other than the main one everything below does nothing."""
    global _current
    _current = _Tracker(step, recipe) if main else None


def log(metrics: Mapping[str, Any], global_step: int | None = None) -> None:
    """Records numbers, with the step of the trainer that they belong to where there is one."""
    if _current is not None:
        _current.log(metrics, global_step)


def count_rows(block: str, by_source: Mapping[str, Mapping[str, int]]) -> None:
    """Notes for done.json how many rows of each dataset of a data block were read, left out, and used."""
    if _current is not None:
        _current.rows[block] = {name: dict(counts) for name, counts in by_source.items()}


def rows() -> dict[str, dict[str, dict[str, int]]]:
    """What `count_rows` was told in this step: block -> dataset -> count -> rows."""
    return {} if _current is None else _current.rows


def table(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends rows to a table of samples, in wandb only: the artifact holds all of them."""
    if _current is not None:
        _current.table(name, rows)


def position() -> int:
    """The bytes of the record so far, which are on the disk; 0 on other ranks."""
    return 0 if _current is None else _current.position()


def resume(logged: int | None) -> None:
    """Goes on with the first `logged` bytes of the record, or with None, without what earlier launches have logged.

    What this launch has logged by now, it has logged before in the one that it goes on from.
    """
    if _current is not None:
        _current.resume(logged)


def settle() -> None:
    """Leaves the record as it stays, before its hash is taken: without what launches before this one have logged.

    A training has said already what it goes on from; all other steps are made anew.
    """
    if _current is not None:
        _current.settle()


def finish(record: Mapping[str, Any] | None = None) -> None:
    """Closes the record: with the step's done.json, or without where it failed or another process goes on with it."""
    global _current
    if _current is not None:
        _current.finish(record)
    _current = None


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that was cut by a crash is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def redact(value: Any) -> Any:
    """The value without what looks like a secret: keys by their names, user names and passwords in URLs."""
    if isinstance(value, Mapping):
        return {key: "(redacted)" if _secret(key) else redact(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1(redacted)@", value) if isinstance(value, str) else value


def _secret(key: Any) -> bool:
    words = ("eos_token", "pad_token", "bos_token", "unk_token")  # of a vocabulary
    return bool(SECRET.search(str(key))) and key not in words


class _Tracker:
    def __init__(self, step: Step, recipe: Recipe):
        self.step, self.recipe = step, recipe
        self.path = step.dir / "metrics.jsonl"
        self.section = word(step.kind)  # of the charts in wandb, where the losses of all kinds would share one
        self.file = self.path.open("a")
        if self.file.tell() and not self.path.read_bytes().endswith(b"\n"):
            self.file.write("\n")  # after a line that a killed process left torn
        self.start: int | None = self.file.tell()  # what earlier launches have logged; None when that is settled
        self.tables: dict[str, Any] = {}
        self.rows: dict[str, dict[str, dict[str, int]]] = {}
        self.run: Any = None
        if recipe.wandb is not None:
            self._guarded(self._begin)

    def log(self, metrics: Mapping[str, Any], global_step: int | None) -> None:
        numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float | str)}
        step = {} if global_step is None else {"step": global_step}
        row = {"time": round(time.time(), 3), **step, **numbers}
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()
        # wandb's own counter cannot go back on resume: the trainer's step is a metric, and the x-axis
        axis = {} if global_step is None else {"train/global_step": global_step}
        named = {f"{self.section}/{key}": value for key, value in numbers.items()}
        self._mirror(lambda: self.run.log(named | axis))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        def append() -> None:
            import wandb

            if name not in self.tables:
                self.tables[name] = wandb.Table(columns=list(rows[0]), log_mode="INCREMENTAL")
            for row in rows:
                self.tables[name].add_data(*row.values())
            self.run.log({name: self.tables[name]})

        if rows:
            self._mirror(append)

    def position(self) -> int:
        os.fsync(self.file.fileno())
        return self.file.tell()

    def resume(self, logged: int | None) -> None:
        record = self.path.read_bytes()
        kept = record[self.start :] if logged is None else record[:logged]
        self.start = None
        if kept != record:
            self.file.close()
            write_atomically(self.path, kept.decode())
            self.file = self.path.open("a")

    def settle(self) -> None:
        if self.start is not None:
            self.resume(None)

    def finish(self, record: Mapping[str, Any] | None) -> None:
        def close() -> None:
            if record is not None:
                self.run.summary.update({**record["metrics"], "seconds": record["seconds"]})
                self.run.log_artifact(self._artifact(record), aliases=["latest", self.step.fingerprint])
            self.run.finish(exit_code=0 if record is not None else 1)

        self.file.close()
        self._mirror(close)

    def _mirror(self, action: Callable[[], Any]) -> None:
        if self.run is not None:
            self._guarded(action)

    def _guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # whatever wandb does, the step goes on; told once, since the run is dropped
            self.run = None
            logger.warning("wandb is off for %s: %s: %s", self.step.name, type(error).__name__, error)

    def _begin(self) -> None:
        """Opens the run: offline where the server takes none, then also in the steps after this one."""
        try:
            self._init()
        except Exception:
            if common(self.recipe)["mode"] != "online":
                raise
            os.environ["WANDB_MODE"] = "offline"
            self._init()

    def _init(self) -> None:
        import wandb

        shared = common(self.recipe)
        mode = shared["mode"]
        run = self.run = wandb.init(
            **shared,
            job_type=self.step.stage if self.recipe.points else self.step.kind,
            name=self.step.point or self.step.name,
            id=word(f"{self.step.name}-{self.step.fingerprint}"),
            dir=str(self.step.dir),
            config={
                "recipe": self.recipe.name,
                "fingerprint": self.step.fingerprint,
                "inputs": {step.name: step.fingerprint for step in self.step.inputs},
                "options": redact(self.step.options),
                "versions": versions(),
                **({"point": redact(self.step.varied)} if self.recipe.points else {}),
            },
        )
        run.define_metric("train/global_step", hidden=True)
        run.define_metric(f"{self.section}/*", step_metric="train/global_step")
        if mode == "online":  # the server resolves names; offline runs keep the lineage in their config
            for source in self.step.inputs:
                maker, name = finished.made_as(source.dir)  # perhaps another recipe
                run.use_artifact(f"{word(f'{maker}-{name}')}:{source.fingerprint}")

    def _artifact(self, record: Mapping[str, Any]) -> Any:
        import wandb

        names = set(record["files"])
        kind = "report"
        if "config.json" in names:
            kind = "model"
        elif any(name.endswith(".parquet") for name in names):
            kind = "dataset"
        artifact = wandb.Artifact(
            word(f"{self.recipe.name}-{self.step.name}"),
            type=kind,
            metadata={"fingerprint": self.step.fingerprint, "inputs": record["inputs"], "metrics": record["metrics"]},
        )
        artifact.add_reference((self.step.dir / "output").resolve().as_uri(), checksum=False)
        return artifact


def common(recipe: Recipe) -> dict[str, Any]:
    """What all runs of a recipe have in common, as `wandb.init` takes it."""
    import wandb

    settings = recipe.wandb or {}
    return {
        "project": os.environ.get("WANDB_PROJECT") or settings.get("project", "trimtab"),
        "entity": settings.get("entity"),
        "group": os.environ.get("WANDB_RUN_GROUP") or settings.get("group", recipe.name),
        "tags": settings.get("tags"),
        "resume": "allow",
        "mode": os.environ.get("WANDB_MODE") or ("online" if has_key() else "offline"),
        # which would look up all packages that are installed, for every step: those that matter are `versions`
        "settings": wandb.Settings(silent=True, console="off", init_timeout=20, x_save_requirements=False),
    }


def word(name: str) -> str:
    """A name as wandb takes it for an id or an artifact."""
    return re.sub(r"[^\w.-]", "-", name)


def has_key() -> bool:
    """Whether there is a key for wandb's server, in the environment or in a netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = re.sub(r"^\w+://|[:/].*$", "", os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
