"""Reads wandb's offline files: what a server would show of a run, without one."""

import json
import struct
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


def shown(folder: Path) -> dict[str, Shown]:
    """The runs of all offline files below a folder by their ids, as a server has them after `wandb sync`."""
    from wandb.proto import wandb_internal_pb2

    runs: dict[str, Shown] = {}
    for path in sorted(folder.rglob("offline-run-*/*.wandb"), key=lambda path: path.parent.name):
        if any(part.is_symlink() for part in path.parents):
            continue
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
    return runs


def _payloads(content: bytes):
    """The records of a file in LevelDB's log format, behind wandb's own header."""
    position, parts = HEADER, []
    while position + HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + HEADER])
        parts.append(content[position + HEADER : position + HEADER + length])
        position += HEADER + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield b"".join(parts)
            parts = []
