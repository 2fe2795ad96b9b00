"""What a step has left, read for the report: done.json, metrics.jsonl and the JSON files of its artifact.

What is missing or broken there becomes a note and stops nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from trimtab.pipelines.planning import kinds
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.pipelines.reporting.shows import Shows

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


class Record(TypedDict):
    """One step. What stands in done.json alone is as it stands there, None where it is missing."""

    name: str
    stage: Any
    kind: str
    fingerprint: str
    done: bool
    output: Path  # its artifact
    rows: list[dict[str, Any]]  # of metrics.jsonl
    notes: list[str]  # what could not be read
    metrics: dict[str, Any]
    options: dict[str, Any]
    inputs: dict[str, str]  # step -> fingerprint
    versions: dict[str, Any]
    files: dict[str, Any]
    recipe: Any
    seed: str
    seconds: Any
    world_size: Any
    distributed: Any
    device: Any
    finished: Any
    sources: dict[str, Any]  # data block -> dataset -> how many rows were read, left out and used
    peak_bytes: Any
    forecast: dict[str, Any]  # what was expected of the step before it ran


def read(output: Path, step: Step | None = None) -> Record:
    """The record of the step with the artifact `output`, under its names in the recipe where that is given."""
    notes: list[str] = []
    done = json_object(output.parent / "done.json", notes)
    rows: list[dict[str, Any]] = []
    try:
        rows = [row for row in tracking.read(output.parent / "metrics.jsonl") if isinstance(row, dict)]
    except (OSError, ValueError) as error:
        notes.append(f"metrics.jsonl cannot be read: {error}")
    if not done and not notes:
        notes.append(f"{output} has no done.json: the step is not finished, or it is no step of a recipe")
    name, _, fingerprint = output.parent.name.rpartition("-")  # the folder's name says it too
    return Record(
        name=step.name if step else str(done.get("step") or name or output.name),
        stage=step.stage if step else done.get("stage"),
        kind=str(done.get("kind") or ""),
        fingerprint=str(done.get("fingerprint") or fingerprint),
        done=bool(done),
        output=output,
        rows=rows,
        notes=notes,
        metrics=mapping(done.get("metrics")),
        options=mapping(done.get("options")),
        inputs=_inputs(step, done),
        versions=mapping(done.get("versions")),
        files=mapping(done.get("files")),
        recipe=done.get("recipe"),
        seed="" if done.get("seed") is None else str(done["seed"]),
        seconds=done.get("seconds"),
        world_size=done.get("world_size"),
        distributed=done.get("distributed"),
        device=done.get("device"),
        finished=done.get("finished"),
        sources=mapping(done.get("rows")),
        peak_bytes=done.get("peak_bytes"),
        forecast=mapping(done.get("forecast")),
    )


def _inputs(step: Step | None, done: dict[str, Any]) -> dict[str, str]:
    if step:
        return {source.name: source.fingerprint for source in step.inputs}
    return {name: str(source) for name, source in mapping(done.get("inputs")).items()}


def stage_class(record: Record) -> Any:
    """The class of the step's kind, or None of a kind that cannot be imported."""
    try:
        return kinds.find(kinds.STAGES, record["kind"])
    except Exception:  # a file that is no more, or code from outside, which may fail in any way
        return None


def shows(record: Record) -> Shows:
    """What the class of the step's kind wants shown of it."""
    return getattr(stage_class(record), "shows", Shows())


def shown_of_log(block: dict[str, Any]) -> dict[str, str]:
    """The titles, by column, of what the class of a reward's block wants shown of what it logs."""
    try:
        return mapping(getattr(kinds.find(kinds.REWARDS, block.get("kind")), "logs", None))
    except Exception:  # as above
        return {}


def json_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """A file's JSON object, or an empty one with a note of what is wrong."""
    try:
        value = artifacts.read_done(path.parent) if path.name == "done.json" else json.loads(path.read_text())
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return {}
    if value is not None and not isinstance(value, dict):
        notes.append(f"{path.name} holds no JSON object")
    return mapping(value)


def json_rows(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """A file's JSON list of objects, or an empty one with a note of what is wrong."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return []
    if not isinstance(value, list):
        notes.append(f"{path.name} holds no JSON list")
        return []
    return list(map(mapping, value))


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}
