"""Kind `lm_eval`: public benchmarks, by the Language Model Evaluation Harness in an environment of its own.

    lm_eval: {policies: {sft: $sft, dpo: $dpo}, tasks: [gsm8k, ifeval], apply_chat_template: true}

The program is `lm_eval` of the PATH, or what the environment variable TRIMTAB_LM_EVAL says, such as
`/opt/lm-eval/bin/lm_eval --include_path my/tasks`: a recipe does not name programs, since those of others may be run
by whoever has them. Tasks that execute what a model writes, or code from the Hub, are never allowed to.

Metrics are `POLICY/TASK/METRIC/mean` and `stderr`. Artifact: `POLICY.json` as the harness wrote it, with its version.
The main rank asks it, on one device: launch the step on one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import ModelName
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature

PROGRAM = "TRIMTAB_LM_EVAL"
OF_A_LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "ACCELERATE_", "TORCHELASTIC_")
TASK = re.compile(r"\w[\w:+-]*")
TOLD = 5  # last lines of the program in an error


@dataclass(kw_only=True)
class LmEval(Stage):
    """`limit` is a number of documents of each task, for a trial; the other keys are the harness's own."""

    policies: dict[str, ModelName]
    tasks: list[str]
    num_fewshot: int | None = None
    limit: int | None = None
    batch_size: int = 8
    apply_chat_template: bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    shows: ClassVar[Shows] = Shows(results=("*/mean",), compares=("*/mean",))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {**super().small(block, miniature), "limit": 2}

    def check(self, step: Step) -> None:
        program, *_ = _program()
        tasks = (*step.path, "tasks")
        if shutil.which(program) is None:
            cure = f"`pip install lm-eval` into an environment of its own, and give its program in {PROGRAM}"
            raise RecipeError(f"{program} is no program here: {cure}", step.path)
        for key in ("policies", "tasks"):
            if not getattr(self, key):
                raise RecipeError("name at least one", (*step.path, key))
        for task in self.tasks:
            if not TASK.fullmatch(task):  # the harness runs what a task's file says
                raise RecipeError(f"{task!r} is no name of a task: give a folder of your own to {PROGRAM}", tasks)
        for policy, model in self.policies.items():
            if "," in model:  # more settings would follow it
                raise RecipeError(f"{model!r} has a comma in it", (*step.path, "policies", policy))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        if not PartialState().is_main_process:
            return {}
        metrics: Metrics = {}
        for policy, model in self.policies.items():
            results = self._asked(step, policy, model)
            (step.output / f"{policy}.json").write_text(json.dumps(results, indent=1))
            for name, value in _numbers(results):
                metrics[f"{policy}/{name}"] = value
        return metrics

    def _asked(self, step: Step, policy: str, model: str) -> dict[str, Any]:
        """What the harness leaves of one policy. Raises RecipeError with its last lines where it fails."""
        with tempfile.TemporaryDirectory(dir=step.dir) as folder:
            words = [*_program(), *self._words(step, model), f"--output_path={folder}"]
            variables = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_LAUNCH)}
            ended = subprocess.run(
                words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
            )
            written = sorted(Path(folder).rglob("results_*.json"))
            if ended.returncode or not written:
                last = "\n".join(ended.stdout.strip().splitlines()[-TOLD:])
                message = f"{shlex.join(words)} ended with exit code {ended.returncode}:\n{last}"
                raise RecipeError(message, (*step.path, "policies", policy))
            return json.loads(written[-1].read_text())

    def _words(self, step: Step, model: str) -> list[str]:
        import torch

        device = torch.accelerator.current_accelerator()
        words = ["--model=hf", f"--model_args=pretrained={model},dtype={self.dtype}"]
        words += [f"--tasks={','.join(self.tasks)}", f"--batch_size={self.batch_size}", f"--seed={step.seed}"]
        words += [f"--device={device.type if device else 'cpu'}"]
        words += ["--apply_chat_template"] if self.apply_chat_template else []
        for key in ("num_fewshot", "limit"):
            if getattr(self, key) is not None:
                words += [f"--{key}={getattr(self, key)}"]
        return words


def _program() -> list[str]:
    """The words with which the harness is started."""
    return shlex.split(os.environ.get(PROGRAM, "")) or ["lm_eval"]


def _numbers(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`TASK/METRIC/mean` and `stderr` of what the harness calls `METRIC,FILTER` and `METRIC_stderr,FILTER`."""
    for task, numbers in results["results"].items():
        for key, value in numbers.items():
            name, comma, chosen_by = key.partition(",")
            if not comma or not isinstance(value, int | float):
                continue
            metric, kind = (name.removesuffix("_stderr"), "stderr") if name.endswith("_stderr") else (name, "mean")
            by = "" if chosen_by == "none" else f" {chosen_by}"
            yield f"{task}/{metric}{by}/{kind}", float(value)
