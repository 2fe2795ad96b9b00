"""A recipe's pending steps as one Slurm job: an sbatch script with one job step (`srun`) for each."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from trimtab.pipelines.planning.recipe import Launch, Recipe
from trimtab.pipelines.running import consents

HEAD = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --output={log}
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
{options}
# One job step for each step of the recipe; what is done is left alone, so the job can be queued again at any time.
set -euo pipefail
cd {folder}
export HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export PORT=$((20000 + SLURM_JOB_ID % 20000))
export {consent}
"""
# of every node, where the ranks are started
NODE = (
    '{launch} {ranks}--num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" '
    '--main_process_ip "$HEAD" --main_process_port "$PORT" {script}'
)
RANKS = '--num_processes "$((SLURM_NNODES * ${SLURM_GPUS_ON_NODE:-1}))" '
CONFIG = "multi_node_ddp"  # of steps that leave it to the machine: this one may have no GPU, unlike the job's


def script(recipe: Recipe, commands: Mapping[str, Sequence[str]], options: Sequence[str], folder: Path) -> str:
    """The sbatch script, which works in `folder`.

    `commands` are the launches by step; `options` are those of sbatch (`--nodes=2`).
    """
    head = HEAD.format(
        name=f"trimtab-{recipe.name}",
        log=shlex.quote(str(recipe.run.resolve() / "slurm-%j.log")),
        options="\n".join(f"#SBATCH {option}" for option in options),
        folder=shlex.quote(str(folder)),
        consent=" ".join(f"{name}={shlex.quote(value)}" for name, value in consents.handed_down(recipe).items()),
    )
    lines = [head]
    for step, command in commands.items():
        split = next(index for index, word in enumerate(command) if word.endswith("train.py"))
        launch, training = command[:split], command[split:]
        ranks = "" if "--num_processes" in launch else RANKS
        node = NODE.format(launch=shlex.join(launch), ranks=ranks, script=shlex.join(training))
        lines.append(f"echo {shlex.quote(f'[{step}]')}\nsrun --kill-on-bad-exit=1 bash -c {shlex.quote(node)}\n")
    return "\n".join(lines)


def launched_on(options: Sequence[str]) -> Launch | None:
    """What a job with these options of sbatch starts its steps on; None where they do not say how many GPUs."""
    gpus = _gpus(options)
    return Launch(ranks(options), on_cpu=False) if gpus is not None and _nodes(options) is not None else None


def ranks(options: Sequence[str]) -> int:
    """On how many ranks a job with these options of sbatch runs each of its steps: one for each GPU, or node."""
    return (_nodes(options) or 1) * (_gpus(options) or 1)


def _gpus(options: Sequence[str]) -> int | None:
    """The GPUs of a node, where the options say so."""
    words = _words(options)
    given = [words[word] for word in ("gpus-per-node", "gres", "gpus-per-task") if word in words]
    count = given[0].rpartition(":")[2] if given else ""
    return int(count) if count.isdigit() else None


def _nodes(options: Sequence[str]) -> int | None:
    words = _words(options)
    count = words.get("nodes", words.get("N", "1"))
    return int(count) if count.isdigit() else None


def _words(options: Sequence[str]) -> dict[str, str]:
    return dict(option.lstrip("-").split("=", 1) for option in options if "=" in option)


def submit(text: str, path: Path) -> str:
    """Writes the script and hands it to sbatch; returns the job's id. Raises CalledProcessError, FileNotFoundError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()
