"""The first minutes on a machine with a GPU: does it work, is it right, how fast is it? A JSON file for each part.

    python benchmarks/gpu_check.py                                # all parts, about eight minutes on an H100
    python benchmarks/gpu_check.py parts=probe,tests minutes=3
    python benchmarks/gpu_check.py size=tiny out=/tmp/check       # does the check itself work? on a CPU

Most valuable first; each part has a process and a limit of its own, is printed and saved as it ends, and is not done
again by the same command, which goes on where it was stopped. A part whose time is up keeps what it has measured.

probe      packages, driver, free memory; TFLOP/s of a product in bfloat16, TF32 and float32, TB/s of a copy
tests      pytest -m gpu: devices, dtypes, seeds, packed rows, kernels, first losses, a training that goes on
recipe     recipes/tiny.yaml whole, with the seconds of each step
models     0.5 B parameters: sft, dpo, reward, prefer, sample, GRPO beside plain TRL (see benchmarks/gpu/models.py)
kill       a training that is killed by SIGKILL and goes on: the same weights as undisturbed
forecast   of memory and time, for the steps of `recipe`, beside what was measured

A machine without trl, datasets and what they need gets them as wheels: benchmarks/gpu/wheels.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = {"parts": "", "minutes": "9", "size": "half-billion", "out": "runs/gpu-check"}
QUIET = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "TOKENIZERS_PARALLELISM": "false",
         "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # fmt: skip
LEAST = 5  # seconds, without which no part begins
DULL = ("{'loss'", "{'train_runtime'", "Loading weights", "warnings.warn", "  warn(")
TINY = {  # what a check of the check changes
    "recipe": ["stages.sft.train.max_steps=4", "--stage", "world", "--stage", "scratch", "--stage", "sft"],
    "kill": ["stages.sft.train.max_steps=20", "stages.scratch.config.hidden_size=32"],
}


@dataclass(frozen=True)
class Part:
    """A command, the most seconds that it gets, and what of its folder and its output is kept."""

    seconds: float
    words: Callable[[Path, str], list[str]]
    result: Callable[[Path, str], Any]


def main(words: list[str]) -> int:
    """How many parts have failed."""
    options = OPTIONS | dict(word.split("=", 1) for word in words)
    out = Path(options["out"]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    names = options["parts"].split(",") if options["parts"] else list(PARTS)
    end, failed = time.monotonic() + 60 * float(options["minutes"]), 0
    for name in names:
        record = done(out, name, options["size"])
        if record is None:
            record = run(name, out, options["size"], min(PARTS[name].seconds, end - time.monotonic()))
        failed += record["code"] != 0
    return failed


def done(out: Path, name: str, size: str) -> dict[str, Any] | None:
    """The record of a part that has ended well, of that size."""
    file = out / f"{name}.json"
    record = json.loads(file.read_text()) if file.exists() else {}
    if record.get("code") != 0 or record.get("size") != size:
        return None
    print(f"== {name}: done before, {file}", flush=True)
    return record


def run(name: str, out: Path, size: str, seconds: float) -> dict[str, Any]:
    """Runs a part and writes its record."""
    part, log, begun = PARTS[name], out / f"{name}.log", time.time()
    code = -1
    if seconds > LEAST:
        with log.open("w") as file:
            code = launched(part.words(out, size), file, seconds)
    text = log.read_text() if log.exists() else ""
    record = {"part": name, "size": size, "code": code, "seconds": round(time.time() - begun, 1)}
    try:
        record["result"] = part.result(out, text)
    except Exception as error:  # of a part that was cut short: the record says what there is
        record["result"] = f"{type(error).__name__}: {error}"
    (out / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip() and not line.startswith(DULL)]
    told = "no time left" if seconds <= LEAST else f"exit code {code}, {record['seconds']} s"
    print("\n".join([f"== {name}: {told}", *lines[-16:]]), flush=True)
    return record


def launched(words: list[str], file: Any, seconds: float) -> int:
    """The exit code of a command; 124 where it was ended, with all that it has started, because its time was up."""
    process = subprocess.Popen(words, cwd=ROOT, env=QUIET | os.environ, stdout=file, stderr=subprocess.STDOUT,
                               start_new_session=True)  # fmt: skip
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124


def last_line(out: Path, text: str) -> Any:
    """The JSON that a program has printed last."""
    return json.loads([line for line in text.splitlines() if line.startswith("{")][-1])


def counts(out: Path, text: str) -> str:
    """pytest's last line."""
    return text.strip().splitlines()[-1]


def steps(out: Path, text: str) -> list[dict[str, Any]]:
    """What every step of the recipe has left in its done.json, in the order of their ends."""
    records = [json.loads(file.read_text()) for file in (out / "recipe").glob("steps/*/done.json")]
    kept = ("step", "kind", "device", "seconds", "cpu_seconds", "peak_bytes", "forecast", "metrics")
    return [{key: record.get(key) for key in kept} for record in records]


def rows(out: Path, text: str) -> dict[str, Any]:
    """The rows of the part `models`, and the two sides of each compared."""
    file = out / "models.jsonl"
    measured = [json.loads(line) for line in file.read_text().splitlines()]
    return {"rows": measured, "compared": [line for line in text.splitlines() if " x trl" in line]}


def table(out: Path, text: str) -> list[str]:
    """The lines of a table, and its summary."""
    return [line for line in text.splitlines() if line.startswith(("|", "memory:", "time:"))]


def python(*words: str) -> list[str]:
    return [sys.executable, *words]


def of_recipe(out: Path, size: str) -> list[str]:
    chosen = TINY["recipe"] if size == "tiny" else []
    return python("scripts/train.py", "recipes/tiny.yaml", f"output_dir={out / 'recipe'}", "wandb=false", *chosen)


def of_models(out: Path, size: str) -> list[str]:
    return python("benchmarks/gpu/models.py", size, str(out), str(out / "models.jsonl"))


def of_kill(out: Path, size: str) -> list[str]:
    return python("benchmarks/gpu/kill.py", str(out / "kill"), *(TINY["kill"] if size == "tiny" else []))


def of_forecast(out: Path, size: str) -> list[str]:
    return python("benchmarks/forecast.py", "recipes/tiny.yaml", f"output_dir={out / 'recipe'}", "wandb=false")


PARTS = {
    "probe": Part(60, lambda out, size: python("benchmarks/gpu/probe.py"), last_line),
    "tests": Part(100, lambda out, size: python("-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py"), counts),
    "recipe": Part(180, of_recipe, steps),
    "models": Part(220, of_models, rows),
    "kill": Part(90, of_kill, last_line),
    "forecast": Part(40, of_forecast, table),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
