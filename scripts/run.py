"""Runs a recipe: one `accelerate launch` per pending step, each in processes of its own.

    python scripts/run.py recipes/tiny.yaml --plan                    # what would run, and the exact commands
    python scripts/run.py recipes/tiny.yaml --check-rewards           # load and try every reward first
    python scripts/run.py recipes/tiny.yaml --shrink                  # does it fit together? a minute, on a CPU
    python scripts/run.py recipes/tiny.yaml                           # run what is pending
    python scripts/run.py recipes/tiny.yaml stages.dpo.train.beta=0.2 --from dpo
    python scripts/run.py recipes/tiny.yaml -- --num_processes 2      # after --: for every accelerate launch
    python scripts/run.py recipes/mine.yaml --launcher slurm --sbatch=--nodes=2 --sbatch=--gpus-per-node=8

A step that is done is never run again; a step that was interrupted continues from its newest complete checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import artifacts, preflight, slurm
from pipelines.errors import RecipeError
from pipelines.recipe import Recipe, Step
from scripts.train import arguments, command_line, die_with_parent, quiet, show

GRACE = 20.0  # seconds between asking the workers to stop and killing them


def main(argv: list[str] | None = None) -> int:
    """0 when every chosen step is done, 2 for a mistake in the recipe, else the failed launch's exit code."""
    words = sys.argv[1:] if argv is None else argv
    words, extra = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = command_line(__doc__)
    parser.add_argument("--plan", action="store_true", help="check the recipe, print the plan and stop")
    parser.add_argument("--verbose", action="store_true", help="with --plan: every key, its value and its origin")
    parser.add_argument("--check-rewards", action="store_true", help="load and try every reward, and stop")
    parser.add_argument("--shrink", action="store_true", help="tiny random models, a few rows and two steps, on a CPU")
    parser.add_argument("--only", metavar="STAGE", help="only this stage or step")
    parser.add_argument("--launcher", choices=("local", "slurm"), default="local", help="where launches run")
    parser.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION", help="of sbatch: --sbatch=--nodes=2"
    )
    parser.add_argument("--from", dest="start", metavar="STAGE", help="this stage or step and those after it")
    options = parser.parse_intermixed_args(words)
    path, overrides = arguments(parser, options)
    quiet()
    try:
        if options.shrink:
            from pipelines import shrink

            path, overrides = shrink.shrunk(path, overrides), []
        recipe = Recipe.load(path, overrides)
        steps = recipe.select(options.only, options.start)
        preflight.check(recipe, steps)
        auto = slurm.CONFIG if options.launcher == "slurm" else None
        if options.plan:
            print(preflight.table(recipe, steps, extra, auto, verbose=options.verbose))
            if options.launcher == "slurm":
                commands = launches(recipe, steps, extra, auto)
                print("\n" + slurm.script(recipe, commands, options.sbatch, Path.cwd()))
            return 0
        if options.check_rewards:
            return check_rewards(steps)
        preflight.require_inputs(steps)
        pending = [step for step in steps if not step.done]
        commands = launches(recipe, steps, extra, auto)
    except RecipeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.launcher == "slurm":
        return queue(recipe, commands, options.sbatch)
    try:
        with artifacts.lock(recipe.run, shlex.join(sys.argv)) if pending else contextlib.nullcontext():
            return launch_all(recipe, steps, commands)
    except artifacts.Locked as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def launches(recipe: Recipe, steps: tuple[Step, ...], extra: list[str], auto: str | None) -> dict[str, list[str]]:
    """The launch of every pending step, by its name; `auto` is the configuration of those that name none."""
    return {step.name: preflight.command(recipe, step, extra, auto) for step in steps if not step.done}


def queue(recipe: Recipe, commands: dict[str, list[str]], words: list[str]) -> int:
    """Submits one job for all pending steps; 1 where there is no Slurm, or it refuses."""
    if not commands:
        print("every step is done")
        return 0
    path = recipe.run / "slurm.sh"
    try:
        job = slurm.submit(slurm.script(recipe, commands, words, Path.cwd()), path)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"error: sbatch {path}: {getattr(error, 'stderr', None) or error}", file=sys.stderr)
        return 1
    print(f"job {job}: {len(commands)} steps, {path}; its output will be in {recipe.run}/slurm-{job}.log")
    return 0


def check_rewards(steps: tuple[Step, ...]) -> int:
    """Prints what is found of every reward; 1 when one of them cannot be used."""
    from pipelines import reward_check

    passed = True
    for ok, lines in reward_check.check(steps):
        print(lines, flush=True)
        passed = passed and ok
    return 0 if passed else 1


def launch_all(recipe: Recipe, steps: tuple[Step, ...], commands: dict[str, list[str]]) -> int:
    """Launches the pending steps in order and stops at the first one that fails."""
    for step in steps:
        print(f"[{recipe.steps.index(step) + 1}/{len(recipe.steps)}] {step.name} ({step.kind}) {step.fingerprint}")
        if step.name not in commands:
            print(f"    done: {step.output}")
            continue
        print(f"    {shlex.join(commands[step.name])}", flush=True)
        code = launch(commands[step.name], recipe)
        if code != 0 or not step.done:
            reason = f"signal {-code}" if code < 0 else f"exit code {code}"
            left = len(steps) - steps.index(step) - 1
            message = f"{step.name} failed ({reason}); {left} steps after it were not started"
            print(f"error: {message}. The same command continues here", file=sys.stderr)
            return code if code > 0 else 1
    show(steps)
    return 0


def launch(command: list[str], recipe: Recipe) -> int:
    """Runs one launch in a process group of its own, hands SIGINT and SIGTERM on, and leaves nothing running."""
    environment = os.environ | {"TRIMTAB_LOCK": str(recipe.run.resolve())}
    typed = shlex.join(command)
    if (
        "/cpu.yaml" in typed and "--num_processes" not in typed
    ):  # accelerate would choose so too, with a warning at each launch
        environment.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    words = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *command[1:]]
    received: list[int] = []
    child = subprocess.Popen(words, env=environment, start_new_session=True, preexec_fn=die_with_parent)

    def forward(number: int, frame: object) -> None:
        received.append(number)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL if len(received) > 1 else number)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = wait(child, received)
    finally:
        with contextlib.suppress(ProcessLookupError):  # workers that outlived their launcher
            os.killpg(child.pid, signal.SIGKILL)
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 128 + received[0] if received else code


def wait(child: subprocess.Popen, received: list[int]) -> int:
    """Waits for the child; once a signal was handed on, for GRACE seconds, then kills its process group."""
    deadline = GRACE
    while True:
        try:
            return child.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            if received:
                deadline -= 0.5
            if deadline <= 0:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
