"""Kind `reward`: a reward model from preferences (trl.RewardTrainer) or from rankings.

    reward: {model: {model_name_or_path: $sft}, data: $pairs, train: {learning_rate: 1e-5}}
    reward: {model: {model_name_or_path: $sft}, data: $ranked, loss: listwise, train: {learning_rate: 1e-5}}

`pairwise` is Bradley-Terry on `chosen` and `rejected` (with `prompt` or without). `listwise` is Plackett-Luce on
`prompt` and `completions`, a list from the best answer to the worst, as `pair` with `select: ranked` makes it.

The artifact holds `reward_calibration.json`: mean and standard deviation of the scores of the answers in `calibrate`
(by default `eval_data`), which `{kind: reward_model, normalize: true}` makes a z-score of, the same for ever after.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from typing import Any, Literal

import trl

import rewards
from pipelines import data, plugins, training
from pipelines.data import Data
from pipelines.stages import Stage

CALIBRATED = 1000  # rows whose answers are scored at most
ANSWERS = (*data.PREFERENCE, *data.RANKING, ("completion",))


@dataclass(kw_only=True)
class Reward(Stage):
    """`eval_data` is evaluated at the end: `eval/accuracy` is the share of pairs ranked as labelled."""

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    calibrate: Data | None = None
    loss: Literal["pairwise", "listwise"] = "pairwise"
    train: trl.RewardConfig

    def check(self, step):
        training.check(self, step, data.PREFERENCE if self.loss == "pairwise" else data.RANKING)
        data.check(self.calibrate, step, "calibrate", ANSWERS)

    def run(self, step):
        self.model.lora_task_type = "SEQ_CLS"  # trl's default is a language model's, which a reward model never is
        if self.loss == "pairwise":
            trainer = trl.RewardTrainer
        else:
            from pipelines.trainers.listwise_reward import ListwiseRewardTrainer as trainer

        metrics = training.fit(trainer, self, step)
        training.release()
        return metrics | self._calibration(step)

    def _calibration(self, step) -> dict[str, float]:
        from accelerate import PartialState

        source = self.calibrate or self.eval_data
        distributed = PartialState()
        metrics = {}
        if source is not None and distributed.is_main_process:
            rows = data.load(source, (*step.path, "calibrate"))
            prompts, answers = _answers(rows.select(range(min(CALIBRATED, len(rows)))))
            reward = plugins.load("rewards", {"kind": "reward_model", "path": str(step.output)})
            found = rewards.outcomes(reward, prompts, answers)
            scores = [outcome for outcome in found if isinstance(outcome, float)]  # not those beyond the context
            mean, std = statistics.fmean(scores), statistics.pstdev(scores)
            record = {"mean": [mean], "std": [std], "answers": len(scores)}
            (step.output / "reward_calibration.json").write_text(json.dumps(record) + "\n")
            metrics = {"calibration/mean": mean, "calibration/std": std}
        distributed.wait_for_everyone()
        return metrics


def _answers(rows: Any) -> tuple[list, list]:
    """Prompts and answers of rows in any of the forms; without a prompt the answer holds the whole conversation."""
    prompts, answers = [], []
    for row in rows:
        found = row["completions"] if "completions" in row else [
            row[key] for key in ("chosen", "rejected", "completion") if key in row
        ]  # fmt: skip
        prompts += [row.get("prompt") or ("" if isinstance(found[0], str) else [])] * len(found)
        answers += found
    return prompts, answers
