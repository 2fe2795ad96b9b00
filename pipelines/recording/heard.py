"""What a step has been told from outside, line by line on disk: after a kill none of it is asked again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.files import write_atomically


@dataclass(frozen=True)
class Heard:
    """A file of JSON lines, which the main process alone reads and writes."""

    path: Path

    def __iter__(self) -> Iterator[Any]:
        """What stands there; a line that a kill has torn is none, and is taken away."""
        lines = self.path.read_text().split("\n") if self.path.is_file() else [""]
        if lines[-1]:
            write_atomically(self.path, "".join(f"{line}\n" for line in lines[:-1]))
        return map(json.loads, lines[:-1])

    def add(self, *told: Any) -> None:
        """Writes a line for each."""
        with self.path.open("a") as file:
            file.write("".join(json.dumps(line) + "\n" for line in told))
