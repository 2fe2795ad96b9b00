"""How fast are training, sampling and scoring beside TRL's own paths? In turns, in one process, with equal values.

    python benchmarks/speed data=pairs.jsonl.gz                             # all modes; an hour on one thread, alone
    python benchmarks/speed data=... modes=dpo,reward models=7m,30m vocabularies=8192,32768 repeats=3
    python benchmarks/speed data=... modes=answers,lengths                  # how the cost of ours grows
    python benchmarks/speed data=... modes=dpo save=yes                     # becomes the baseline of this machine
    python benchmarks/speed data=... modes=sample profile=yes               # where the time of ours goes, by operation
    python benchmarks/speed page                                            # writes docs/results/speed.md

`data` is a file of preference pairs in chat form (`prompt`, `chosen`, `rejected`), of which each run takes
`batch` x `steps`. TRL comes as it is and at its best; ours are the stages of a recipe, with their defaults. A run that
is more than 15 % slower beside TRL than its baseline in benchmarks/baselines/ is named, and the exit code is 1.
`note` says on the page how the machine was: what else ran on it, and where.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import _checkout  # noqa: F401

OPTIONS = {
    "data": "",
    "modes": "sft,sft-packed,dpo,reward,grpo,sample,score",
    "models": "7m",
    "vocabularies": "8192",
    "batch": "8",
    "steps": "4",
    "repeats": "3",
    "threads": "1",
    "save": "no",
    "profile": "no",
    "machine": "",
    "note": "",
}
TITLES = {
    "dpo": "A preference step",
    "reward": "A reward model's step",
    "sft": "Supervised fine-tuning",
    "sft-packed": "Supervised fine-tuning in packed rows",
    "grpo": "A GRPO step",
    "sample": "A thousand tokens of completions, four of a prompt",
    "score": "Scores of a reward model",
    "answers": "More answers of a prompt",
    "lengths": "Longer prompts",
}
OPERATIONS = {"sft": 6, "dpo": 6, "reward": 6}  # of a weight and a needed token: forward and backward


def main(words: list[str]) -> int:
    """0, or 1 where a side is slower than its baseline."""
    import baselines

    if words == ["page"]:
        path = Path(__file__).resolve().parents[2] / "docs" / "results" / "speed.md"
        path.write_text(baselines.page(list(TITLES)))
        return 0
    options = OPTIONS | dict(word.split("=", 1) for word in words)
    if unknown := options.keys() - OPTIONS:
        sys.exit(f"error: no option {', '.join(sorted(unknown))}: one of {', '.join(OPTIONS)}")
    if not options["data"]:
        sys.exit("error: data=FILE is missing: preference pairs in chat form")
    sentences = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"HF_DATASETS_CACHE": f"{folder}/datasets", "XDG_CACHE_HOME": f"{folder}/cache"}
        for record in _records(Path(folder), options):
            print(f"\n{record['title']}, {record['model']}, {record['vocabulary']} words\n\n{baselines.table(record)}")
            if options["save"] == "yes":
                path = baselines.path_of(record)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(record, indent=1) + "\n")
            else:
                sentences += baselines.slower(record)
    print(*sentences, sep="\n")
    return int(bool(sentences))


def _records(folder: Path, options: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What was measured of each model, vocabulary and mode."""
    import baselines
    import clock
    import datasets
    import material
    import sampling
    import scoring
    import torch
    import trainings
    import transformers

    datasets.disable_caching()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    threads, steps, batch = int(options["threads"]), int(options["steps"]), int(options["batch"])
    peak = clock.peak(threads)
    modes = trainings.MODES | {"sample": sampling.sample, "score": scoring.score}
    of_threads = "1-thread" if threads == 1 else f"{threads}-threads"
    of_processor = f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability().lower()}"
    machine = options["machine"] or f"{of_processor}-{of_threads}"
    for shape in options["models"].split(","):
        for vocabulary in options["vocabularies"].split(","):
            made = material.make(folder, options["data"], shape, int(vocabulary), steps * batch)
            for mode in options["modes"].split(","):
                sides = modes[mode](made, batch, steps)
                if options["profile"] == "yes":
                    clock.profile(side for side in sides if side.is_ours)
                    continue
                runs: dict[str, list[clock.Measured]] = {side.name: [] for side in sides}
                for _ in range(int(options["repeats"])):
                    for side in sides:
                        runs[side.name].append(side.run())
                facts: dict[str, Any] = {
                    "title": TITLES[mode],
                    "machine": machine,
                    "model": shape,
                    "vocabulary": int(vocabulary),
                    "parameters": made.parameters,
                    "date": time.strftime("%F"),
                    "note": options["note"],
                    "words": _words(options, mode, shape, vocabulary),
                    "peak": peak,
                    "operations": OPERATIONS.get(mode, 0),
                    "multiplied": made.multiplied(mode),
                    "needed": made.needed(mode) if mode in OPERATIONS else 0,
                }
                yield baselines.record(mode, sides, runs, facts)


def _words(options: dict[str, str], mode: str, shape: str, vocabulary: str) -> str:
    one = options | {"modes": mode, "models": shape, "vocabularies": vocabulary, "data": "..."}
    kept = {key: value for key, value in one.items() if key in ("data", "modes") or value != OPTIONS[key]}
    return " ".join(f"{key}={value}" for key, value in kept.items() if key not in ("save", "machine", "note"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
