"""How long the audit takes, and how much memory: on synthetic preference rows, or on files of yours.

    python benchmarks/data_audit.py --rows 200000                           # what needs no tokenizer
    python benchmarks/data_audit.py --rows 200000 --tokenizer org/model
    python benchmarks/data_audit.py --tokenizer org/model pairs.jsonl.gz    # and what is found, class by class

A second look at the same rows is timed too: it comes from the cache, which lies in a folder of its own here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

WORDS = "the a of river stone bread is near under makes takes gives old green quick light water hand bird".split()


def write(path: Path, count: int) -> None:
    """Preference rows of 20 to 120 words an answer; one in a thousand has an empty answer, one in a hundred a twin."""
    rng = random.Random(0)

    def words(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    with path.open("w") as file:
        line = ""
        for number in range(count):
            if number % 100 or not line:
                chosen = "" if number % 1000 == 1 else words(20, 120)
                row = {
                    "prompt": [{"role": "user", "content": f"{number}: {words(5, 40)}"}],
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": words(20, 120)}],
                }
                line = json.dumps(row) + "\n"
            file.write(line)


def look(path: Path, tokenizer: Any, max_length: int) -> tuple[float, dict[str, int]]:
    """Seconds of an audit, and the rows of each class."""
    import trl

    from trimtab.pipelines.data import forms
    from trimtab.pipelines.data.audit import facts
    from trimtab.pipelines.data.audit.checking import Audit
    from trimtab.pipelines.data.audit.classes import CLASSES
    from trimtab.pipelines.planning import schema

    facts._seen.clear()
    block = schema.build(trl.DatasetMixtureConfig, forms.mixture(str(path)))
    step = SimpleNamespace(path=("stages", "dpo"), stage="dpo", pending=lambda name: False)
    train = SimpleNamespace(max_length=max_length)
    audit = Audit(step, dict.fromkeys(CLASSES, "warn"), tokenizer, train)  # type: ignore[arg-type]
    started = time.perf_counter()
    _, counts = audit.kept(block, "data", forms.PREFERENCE)
    return time.perf_counter() - started, counts


def main() -> None:
    """Prints a line for each look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--tokenizer")
    parser.add_argument("--max-length", type=int, default=1024)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": folder, "HF_DATASETS_CACHE": f"{folder}/datasets"}
        files = options.files
        if not files:
            files = [Path(folder) / "rows.jsonl"]
            write(files[0], options.rows)
        tokenizer = None
        if options.tokenizer:
            from transformers import AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
        import datasets

        for path in files:
            datasets.load_dataset("json", data_files=str(path))  # reading JSON is not what is timed
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            seconds, counts = look(path, tokenizer, options.max_length)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            again, _ = look(path, tokenizer, options.max_length)
            rows = counts.pop("data/rows")
            found = ", ".join(f"{key.rpartition('/')[2]} {count}" for key, count in counts.items())
            print(
                f"{path.name}: {rows} rows in {seconds:.2f} s ({rows / seconds:,.0f} rows/s), again in {again:.2f} s; "
                f"peak {peak:.0f} MiB, {peak - before:.0f} more than before; {found or 'nothing found'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
