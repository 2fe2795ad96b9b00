"""An artifact's metrics prompt by prompt, for errors over prompts: `by_prompt.parquet` beside the rest of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

FILE = "by_prompt.parquet"
DIGITS = 16  # of a prompt's hash

Values = Mapping[str, Mapping[str, float]]  # metric -> hash of a prompt -> value


def identifiers(prompts: Iterable[str]) -> list[str]:
    """What stands for each prompt, the same in all artifacts; one that is there twice is told apart by a number."""
    counts: Counter[str] = Counter()
    names = []
    for prompt in prompts:
        digest = hashlib.sha256(prompt.encode()).hexdigest()[:DIGITS]
        counts[digest] += 1
        names.append(f"{digest}-{counts[digest]}")
    return names


def write(output: Path, values: Values) -> None:
    """Leaves the values in an artifact."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metrics, prompts, numbers = [], [], []
    for metric, of_prompts in values.items():
        metrics += [metric] * len(of_prompts)
        prompts += list(of_prompts)
        numbers += list(map(float, of_prompts.values()))
    pq.write_table(pa.table({"metric": metrics, "prompt": prompts, "value": numbers}), output / FILE)


def read(output: Path) -> dict[str, dict[str, float]]:
    """The values that an artifact has, none where it has none."""
    import pyarrow.parquet as pq

    path = output / FILE
    values: dict[str, dict[str, float]] = {}
    for row in pq.read_table(path).to_pylist() if path.is_file() else ():
        values.setdefault(row["metric"], {})[row["prompt"]] = row["value"]
    return values
