"""How seconds and peak memory of a plan and of the stages that handle rows grow with the number of rows.

    python benchmarks/data_growth.py                                # 20,000, 60,000 and 200,000 rows
    python benchmarks/data_growth.py --rows 200000 --only score pair
    python benchmarks/data_growth.py --rows 100000 1000000 --words 50 --only sample score pair curate mix compare

Rows are completions of 200 words, four of each prompt, with token ids and log-probabilities as `sample` leaves them;
`curate` also drops near-duplicates (`deduplicate: 0.9`), `compare` puts two policies with as many rows side by side,
and of `sample` what follows the drawing is measured. `read` makes the file that the others map, `plan` reads as many
preference pairs, for the first time and again. Each measurement is a process of its own: seconds by the clock, seconds
of its processor, and its peak of memory beyond what it had before it read a row, without the pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

SYLLABLES = "ba do ki lu me no pi ra su te".split()
WORDS = ["".join(syllables) for syllables in product(SYLLABLES, repeat=4)]
LENGTH = 200  # words of a completion, which are its tokens


def completions(path: Path, count: int, length: int = LENGTH) -> None:
    """Scored completions with their tokens, in files of row groups."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    drawn = np.random.default_rng(0)
    path.mkdir(parents=True)
    writer = None
    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        ids = [drawn.integers(0, len(WORDS), length) for _ in numbers]
        said = [[{"role": "assistant", "content": " ".join(map(WORDS.__getitem__, row))}] for row in ids]
        table = pa.table(
            {
                "prompt": [
                    [{"role": "user", "content": f"Question {number // 4}: which words?"}] for number in numbers
                ],
                "completion": said,
                "prompt_index": [number // 4 for number in numbers],
                "sample_index": [number % 4 for number in numbers],
                "prompt_ids": [list(range(20)) for _ in numbers],
                "completion_ids": [row.tolist() for row in ids],
                "vocabulary": ["0"] * len(numbers),
                "logprobs": [drawn.normal(-2, 1, length).tolist() for _ in numbers],
                "truncated": [False] * len(numbers),
                "scores": [{"a": float(score), "b": float(-score)} for score in drawn.normal(size=len(numbers))],
            }
        )
        writer = writer or pq.ParquetWriter(path / "train.parquet", table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def pairs(path: Path, count: int) -> None:
    """Preference rows of 20 to 120 words an answer, one in a hundred a twin."""
    rng = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            prompt = [{"role": "user", "content": f"{number - (number % 100 == 1)}: which words?"}]
            answers = [" ".join(rng.choices(WORDS, k=rng.randint(20, 120))) for _ in range(2)]
            chosen, rejected = ([{"role": "assistant", "content": answer}] for answer in answers)
            file.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")


def stages(rows: Path) -> dict[str, dict[str, Any]]:
    """The blocks of the stages that are measured, on the completions in a folder."""
    data = str(rows)
    return {
        "score": {"completions": data, "rewards": {"brief": {"kind": "length", "target": 40}}},
        "pair": {"completions": data, "reward": "a"},
        "ranked": {"kind": "pair", "completions": data, "reward": "a", "select": "ranked"},
        "curate": {"completions": data, "reward": "a"},
        "deduplicate": {"kind": "curate", "completions": data, "reward": "a", "keep": 4, "deduplicate": 0.9},
        "mix": {"synthetic": [data], "real": data, "real_fraction": 0.2},
        "compare": {"scored": {"before": data, "after": data}, "baseline": "before"},
    }


def measure(name: str, folder: Path, count: int) -> dict[str, float]:
    """Seconds and MiB of one stage, or of a plan. Runs in a process of its own."""
    from trimtab.pipelines.planning.recipe import Recipe

    recipe = folder / f"{name}.yaml"
    if name == "sample":
        return measure_sampled(folder, count)
    if name.startswith("plan"):
        pairs_file = str(folder / "pairs.jsonl")
        block = {"model": {"model_name_or_path": "$scratch"}, "data": pairs_file, "train": {"max_steps": 1}}
        scratch = {"corpus": pairs_file, "vocab_size": 300, "config": {"model_type": "llama"}}
        blocks: dict[str, Any] = {"scratch": scratch, "dpo": block}
    else:
        blocks = {name: stages(folder / "completions").get(name, {})}
    recipe.write_text(json.dumps({"output_dir": str(folder / "runs"), "wandb": False, "stages": blocks}))
    if name.startswith("plan"):
        from trimtab.pipelines.planning import preflight

        plan = Recipe.load(str(recipe))
        return _watched(lambda: preflight.check(plan, plan.steps))
    import datasets
    import torch  # noqa: F401
    import trl
    from accelerate import PartialState
    from trl.scripts.utils import DatasetConfig

    from trimtab.pipelines.data import loading
    from trimtab.pipelines.planning import preflight

    PartialState(cpu=True)
    datasets.disable_progress_bars()
    if name == "read":
        rows = trl.DatasetMixtureConfig(datasets=[DatasetConfig(path=str(folder / "completions"))])
        return _watched(lambda: loading.load(rows))
    step = Recipe.load(str(recipe)).steps[0]
    stage = preflight.build(step)
    step.output.mkdir(parents=True, exist_ok=True)
    return _watched(lambda: stage.run(step))


def measure_sampled(folder: Path, count: int) -> dict[str, float]:
    """Seconds and MiB of what `sample` does when all is drawn: the parts on the disk become its dataset."""
    import pyarrow.parquet as pq
    from datasets import Dataset

    from trimtab.pipelines.data.writing import write_batches
    from trimtab.pipelines.planning.recipe import Recipe
    from trimtab.pipelines.sampling import joining, shards

    recipe = folder / "sample.yaml"
    recipe.write_text(json.dumps({"output_dir": str(folder / "runs"), "wandb": False, "stages": {"world": {}}}))
    step = Recipe.load(str(recipe)).steps[0]
    step.output.mkdir(parents=True)
    columns = ["completion", "prompt_index", "sample_index", "prompt_ids", "completion_ids", "vocabulary", "logprobs",
               "truncated"]  # fmt: skip
    groups = pq.ParquetFile(folder / "completions" / "train.parquet")
    shards.compute(step, "rows", groups.num_row_groups, lambda part: groups.read_row_group(part, columns).to_pylist())
    asked = Dataset.from_dict({"prompt": [f"Question {number}: which words?" for number in range(count // 4)]})

    def gather() -> None:
        sampled = shards.collect(step, "rows", groups.num_row_groups)
        write_batches(step, joining.batches(asked, sampled))
        joining.totals(sampled)

    return _watched(gather)


def _watched(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a piece of work, by the clock and of the processor, and the MiB that the process came to hold."""
    ended, peak, before = threading.Event(), [0], _anonymous()

    def watch() -> None:
        while not ended.wait(0.02):
            peak[0] = max(peak[0], _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    started, used = time.perf_counter(), time.process_time()
    try:
        work()
    finally:
        seconds, cpu = time.perf_counter() - started, time.process_time() - used
        ended.set()
        watcher.join()
    return {"seconds": seconds, "cpu": cpu, "mib": max(0, peak[0] - before) / 1024}


def _anonymous() -> int:
    """KiB of memory that the process holds and that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def main() -> None:
    """Prints a line for each stage and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 60_000, 200_000])
    parser.add_argument("--words", type=int, default=LENGTH, help="of a completion")
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, folder, count = options.measure
        print(json.dumps(measure(name, Path(folder), int(count))))
        return
    names = ["read", *(options.only or ["plan", "plan-again", "sample", *stages(Path())])]
    for count in options.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            completions(folder / "completions", count, options.words)
            if any(name.startswith("plan") for name in names):
                pairs(folder / "pairs.jsonl", count)
            own = {"XDG_CACHE_HOME": name, "HF_DATASETS_CACHE": f"{name}/datasets", "PYTHONWARNINGS": "ignore"}
            for stage in names:
                command = [sys.executable, __file__, "--measure", stage, name, str(count)]
                done = subprocess.run(command, env=os.environ | own, stdout=subprocess.PIPE, check=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                times = f"{found['seconds']:8.1f} s {found['cpu']:8.1f} s of CPU"
                print(f"{stage:12} {count:8,} rows {times} {found['mib']:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
