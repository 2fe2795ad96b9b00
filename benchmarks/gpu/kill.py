"""Part `kill` of benchmarks/gpu_check.py: a killed training that goes on has the undisturbed one's weights.

    python benchmarks/gpu/kill.py FOLDER [overrides]

The stages `world`, `scratch` and `sft` of recipes/tiny.yaml, by scripts/train.py: once undisturbed, once killed by
SIGKILL as soon as there is a whole checkpoint, and started again by the same command. Prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import _checkout  # noqa: F401

from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.training.checkpoints import MARK

ROOT = Path(__file__).resolve().parents[2]
EXACT = ["stages.sft.train.full_determinism=true", "stages.sft.train.save_steps=10", "wandb=false"]


def main(folder: str, *overrides: str) -> None:
    """Prints what became of the killed training."""
    whole, killed = Path(folder) / "undisturbed", Path(folder) / "killed"
    subprocess.run(command(whole, overrides), check=True, cwd=ROOT)
    process = subprocess.Popen(command(killed, overrides), cwd=ROOT)
    while process.poll() is None and not list(killed.glob(f"steps/sft-*/checkpoints/*/{MARK}")):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    code = process.wait()
    begun = time.time()
    subprocess.run(command(killed, overrides), check=True, cwd=ROOT)
    record = {"killed_by": -code, "seconds_to_the_end": round(time.time() - begun, 1)}
    ours, theirs = (artifacts.read_done(next(runs.glob("steps/sft-*"))) for runs in (killed, whole))
    record["resumed_from"] = ours["metrics"]["train/resumed_from"]
    weights = "model.safetensors"
    record["same_weights"] = ours["files"][weights]["sha256"] == theirs["files"][weights]["sha256"]
    print(json.dumps(record))
    if not record["same_weights"]:
        sys.exit(1)


def command(runs: Path, overrides: tuple[str, ...]) -> list[str]:
    """The same words for each start."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return [sys.executable, "scripts/train.py", "recipes/tiny.yaml", f"output_dir={runs}", *EXACT, *overrides,
            "--stage", "world", "--stage", "scratch", "--stage", "sft"]  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
