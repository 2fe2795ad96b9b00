"""Reads wandb's offline files: what a server would show of a run, without one."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path

BLOCK, HEADER = 32768, 7


@dataclass
class Shown:
    """One run: its record, what was logged, and the names of its artifacts."""

    id: str = ""
    group: str = ""
    job_type: str = ""
    config: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)


def files(folder: Path) -> list[Path]:
    """The offline files below a folder, the oldest first; a recipe's folder has links to steps."""
    below = folder.rglob("offline-run-*/*.wandb")
    paths = [path for path in below if not any(map(Path.is_symlink, path.parents))]
    return sorted(paths, key=lambda path: path.parent.name)


def shown(folder: Path, killed: int = 0) -> dict[str, Shown]:
    """The runs of all offline files below a folder by their ids, as a server has them after `wandb sync`.

    wandb's own process writes the last records when it pleases: all files but those of `killed` runs are waited for.
    """
    for _ in range(100):
        runs, ended = _read(folder)
        if ended + killed >= len(files(folder)):
            return runs
        time.sleep(0.1)
    raise TimeoutError(f"{len(files(folder)) - ended} files in {folder} have no end")


def _read(folder: Path) -> tuple[dict[str, Shown], int]:
    from wandb.proto import wandb_internal_pb2

    runs: dict[str, Shown] = {}
    ended = 0
    for path in files(folder):
        run = Shown()
        for payload in _payloads(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(payload)
            if record.HasField("run"):
                run = runs.setdefault(record.run.run_id, Shown(record.run.run_id))
                run.group, run.job_type = record.run.run_group, record.run.job_type
                run.config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            for item in record.summary.update:
                run.summary[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            if record.HasField("history"):
                row = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
                run.history.append({key: json.loads(value) for key, value in row.items()})
            if record.request.HasField("log_artifact"):
                run.artifacts.append(record.request.log_artifact.artifact.name)
            if record.HasField("artifact"):
                run.artifacts.append(record.artifact.name)
            ended += record.HasField("exit")
    return runs, ended


def _payloads(content: bytes):
    """The records of a file in LevelDB's log format, behind wandb's own header."""
    position, parts = HEADER, []
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        if position + HEADER + length > len(content):  # of a process that was killed
            return
        parts.append(content[position + HEADER : position + HEADER + length])
        position += HEADER + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield b"".join(parts)
            parts = []
