"""Runs one step of a recipe, or all pending ones in this process group. This is what `accelerate launch` launches.

    python scripts/train.py recipes/tiny.yaml                                 # all pending steps, one process
    accelerate launch --config_file accelerate_configs/cpu.yaml --num_processes 2 scripts/train.py recipes/tiny.yaml
    accelerate launch --config_file accelerate_configs/ddp.yaml scripts/train.py recipes/mine.yaml --stage dpo

Large models want `scripts/run.py`, which launches every step by itself. Both leave the same artifacts.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import logging
import os
import re
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import artifacts, preflight, tracking
from pipelines.errors import Interrupted, RecipeError
from pipelines.recipe import Recipe, Step
from rewards import RewardFailure

RANK = int(os.environ.get("RANK", "0"))
MAIN = RANK == 0
LAUNCHED = "TRIMTAB_LOCK" in os.environ  # by scripts/run.py, which holds the lock and prints the headings
STOPPED = 128 + signal.SIGTERM
DULL = re.compile(r"runtime|per_second|total_flos|epoch|num_tokens|resumed_from")


def main(argv: list[str] | None = None) -> int:
    """0 when every step is done, 1 when a reward failed, 2 for a mistake in the recipe or a run directory in use.

    143 after SIGTERM, with a checkpoint to go on from.
    """
    parser = command_line(__doc__)
    parser.add_argument("--stage", help="only this stage or step")
    options = parser.parse_intermixed_args(argv)
    recipe_path, overrides = arguments(parser, options)
    quiet()
    try:
        recipe = Recipe.load(recipe_path, overrides)
        steps = recipe.select(only=options.stage)
        pending = [step for step in steps if not step.done]
        preflight.require_inputs(pending)
        preflight.check(recipe, pending)
        unseen = {step.name for step in pending if step.waiting}  # whose inputs could not be looked at yet
    except RecipeError as error:
        return fail(str(error))
    with contextlib.ExitStack() as stack:
        if MAIN and pending and not LAUNCHED:
            try:
                stack.enter_context(artifacts.lock(recipe.run, shlex.join(sys.argv)))
            except artifacts.Locked as error:
                return fail(str(error))
        if len(pending) > 1 and sharded():
            say("FSDP and DeepSpeed keep state between the steps of one process: scripts/run.py is the way for them")
        if LAUNCHED or "LOCAL_RANK" in os.environ:  # there is a launcher
            die_with_parent()
        try:
            for step in steps:
                place = f"{recipe.steps.index(step) + 1}/{len(recipe.steps)}"
                if not LAUNCHED:
                    say(f"[{place}] {step.name} ({step.kind}) {step.fingerprint}")
                if step.done:
                    say(f"    done: {step.output}")
                else:
                    run(recipe, step, check=step.name in unseen, timeout=max(map(patience, pending)))
        except RecipeError as error:
            return fail(str(recipe.document.locate(error)))
        except Interrupted as error:
            say(f"    {error}. The same command continues here")
            return STOPPED
        except RewardFailure as error:  # on whichever rank
            print(f"error: {error}", file=sys.stderr, flush=True)
            return 1
        finally:
            if pending:
                leave()
    if not LAUNCHED:
        show(steps)
    return 0


def command_line(description: str) -> argparse.ArgumentParser:
    """What both launchers take: a recipe, by position or as --config, and overrides."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", help="the recipe's YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="stages.dpo.train.beta=0.2")
    parser.add_argument("--config", help="the recipe, as users of trl type it")
    return parser


def arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, list[str]]:
    """The recipe and the overrides: the recipe stands first or after --config."""
    words = [word for word in (options.recipe, *options.overrides) if word]
    recipe = options.config or (words.pop(0) if words else None)
    if recipe is None:
        parser.error("name a recipe, such as recipes/tiny.yaml")
    return recipe, words


def sharded() -> bool:
    from pipelines.seams import sharding  # imports torch and trl, which a recipe that is done does not need

    return sharding() is not None


def patience(step: Step) -> timedelta:
    """How long ranks wait for each other: as `train.ddp_timeout` says, or a day where they sample or score.

    There, one rank may have much more to do than another, and a collective that waits for it is no error.
    """
    if "train" not in step.options:
        return timedelta(days=1)
    return timedelta(seconds=step.options["train"].get("ddp_timeout", 1800))


def run(recipe: Recipe, step: Step, *, check: bool, timeout: timedelta) -> None:
    """One step: artifact folder, tracking, the stage itself, publication. Called by every rank.

    `check` looks at the inputs first: those that the steps before have made since the preflight.
    """
    import torch
    import transformers
    from accelerate import PartialState

    transformers.utils.logging.disable_progress_bar()  # of loading and saving weights; the trainer's stays
    if not torch.accelerator.is_available():
        from pipelines.seams import lean_head_on_cpu

        lean_head_on_cpu()
    # The one state of the process group: without `cpu` the ranks of a machine without GPUs would not know each other.
    from pipelines.seams import sharded_on_cpu

    cpu = not torch.accelerator.is_available() and not sharded_on_cpu()
    distributed = PartialState(cpu=cpu, timeout=timeout)
    started = time.time()
    if distributed.is_main_process:
        step.dir.mkdir(parents=True, exist_ok=True)
        artifacts.link(step.dir, step.name)
        artifacts.fresh(step.dir)
    distributed.wait_for_everyone()
    tracking.start(step, recipe, distributed.is_main_process)
    record = None
    try:
        working = dataclasses.replace(step, output=step.dir / "output.partial")
        stage = preflight.build(working)
        reasons = artifacts.reasons(step.inputs)
        if reasons and not stage.takes_stopped:
            say(f"    not made: {reasons[0]}")
            metrics = {"stopped": 1}
            if distributed.is_main_process:
                artifacts.stop(working.output, reasons[0])
        else:
            if check:
                stage.check(working)
            metrics = stage.run(working)
        distributed.wait_for_everyone()
        if distributed.is_main_process:
            record = artifacts.publish(
                step.dir,
                {
                    "recipe": recipe.name,
                    "step": step.name,
                    "stage": step.stage,
                    "kind": step.kind,
                    "fingerprint": step.fingerprint,
                    "seed": step.seed,
                    "options": tracking.redact(step.options),
                    "inputs": {source.name: source.fingerprint for source in step.inputs},
                    "metrics": metrics,
                    "world_size": distributed.num_processes,
                    "distributed": str(distributed.distributed_type).rpartition(".")[2],
                    "device": device(distributed.device),
                    "seconds": round(time.time() - started, 3),
                },
            )
    finally:
        tracking.finish(record)
    distributed.wait_for_everyone()
    from pipelines.training import release

    release()
    if record:
        kept = [(key, value) for key, value in record["metrics"].items() if not DULL.search(key)]
        kept.sort(key=lambda item: not item[0].startswith("eval/"))
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in kept[:6])
        say(f"    {record['seconds']:.1f} s, {step.output}" + (f"\n    {numbers}" if numbers else ""))


def show(steps: Sequence[Step]) -> None:
    """Prints what a person came for: the tables and the reports among the artifacts."""
    for step in steps:
        if (step.output / "summary.txt").exists():
            say("\n" + (step.output / "summary.txt").read_text())
        if (step.output / "report.html").exists():
            say(f"report: {step.output / 'report.html'}")


def device(kind) -> str:
    """What the step ran on: "cpu", or the accelerator's name."""
    import torch

    return torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type


def quiet() -> None:
    """Sane process-wide settings that a user's environment overrides."""
    defaults = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "WANDB_SILENT": "true",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of two processes on the same cores slow each other 10-fold
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # of the library's own use of its own older names, which no user can change
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*gradient_checkpointing.*")
    warnings.filterwarnings("ignore", category=FutureWarning, message=r"`torch\.distributed\.")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def die_with_parent() -> None:
    """Asks Linux to end this process when its parent dies, even by SIGKILL: no orphan goes on training."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def leave() -> None:
    """Leaves the process group, which a trainer's own end() would do too early for the steps after it."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def say(text: str) -> None:
    if MAIN:
        print(text, flush=True)


def fail(message: str) -> int:
    if MAIN:
        print(f"error: {message}", file=sys.stderr, flush=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
