"""Kind `reward`: a reward model from preferences (trl.RewardTrainer) or from rankings.

    reward: {model: {model_name_or_path: $sft}, data: $pairs, train: {learning_rate: 1e-5}}
    reward: {model: {model_name_or_path: $sft}, data: $ranked, loss: listwise, train: {learning_rate: 1e-5}}
    reward: {model: {model_name_or_path: $sft}, data: $grouped, loss: all_pairs, train: {learning_rate: 1e-5}}

`pairwise` is Bradley-Terry on `chosen` and `rejected` (with `prompt` or without). `listwise` is Plackett-Luce on
`prompt` and `completions`, a list from the best answer to the worst, as `pair` with `select: ranked` makes it.
`all_pairs` is the mean of Bradley-Terry's over all pairs of a prompt's answers of which `completion_scores` puts one
above the other, as in Qwen2.5-Math (arXiv 2409.12122): every prompt counts once, however many of its answers are
right, and every answer goes through the model once (`select: grouped`).

The artifact holds `reward_calibration.json`: mean and standard deviation of the scores of the answers in `calibrate`
(by default `eval_data`), which `{kind: reward_model, normalize: true}` makes a z-score of, the same for ever after.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab import rewards
from trimtab.pipelines.data import loading
from trimtab.pipelines.data.forms import PREFERENCE, RANKING, RATED, Data, Form
from trimtab.pipelines.forecasting import trainers
from trimtab.pipelines.forecasting.passes import judged
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.importing.starting import Start
from trimtab.pipelines.planning import schema
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training.fit import fit
from trimtab.rewards._rendering import TEMPLATED

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


CALIBRATED = 1000  # rows whose answers are scored at most


@dataclass(kw_only=True)
class Reward(TrainerStage):
    """`eval_data` is evaluated at the end: `eval/accuracy` is the share of pairs ranked as labelled."""

    model: trl.ModelConfig
    data: Annotated[Data, PREFERENCE]
    eval_data: Annotated[Data | None, PREFERENCE] = None
    calibrate: Annotated[Data | None, RATED] = None
    loss: Literal["pairwise", "listwise", "all_pairs"] = "pairwise"
    train: trl.RewardConfig

    head: ClassVar[Literal["words", "score"] | None] = "score"
    cuts_by_tokens: ClassVar[bool] = True
    shows: ClassVar[Shows] = Shows(
        {"Loss": LOSS, "Accuracy": ("*/accuracy",)},
        ("eval/accuracy", "eval/loss", "train/loss"),
        ("eval/accuracy",),
        watches=("train/loss", "train/accuracy", "train/margin"),
        section="reward model",
    )
    starts: ClassVar[Start | None] = Start("a reward model from pairs", "prompt, chosen, rejected", rate=1e-5)

    def reads(self) -> dict[str, Form]:
        if self.loss == "pairwise":
            return super().reads()
        form = RANKING.where("completion_scores") if self.loss == "all_pairs" else RANKING
        return super().reads() | {"data": form, "eval_data": form}

    def work(self, known: Known) -> Work:
        texts = 2 if self.loss == "pairwise" else known.rows("data").tokens.shape[1]
        work = trainers.offline(self, known, trainers.Shape(texts, head="score"))
        source = self.calibrate or self.eval_data
        if source is None:
            return work
        answers = known.rows("calibrate" if self.calibrate else "eval_data").shaped(1)
        scored = judged(work.held[0].model, answers, min(2 * CALIBRATED, answers.count))
        return replace(work, passes=(*work.passes, scored))

    def run(self, step: Step) -> Metrics:
        self.model.lora_task_type = "SEQ_CLS"  # trl's default is a language model's, which a reward model never is
        from accelerate.utils import release_memory

        if self.loss == "pairwise":
            from trimtab.pipelines.trainers.whole_steps import RewardTrainer as trainer
        elif self.loss == "listwise":
            from trimtab.pipelines.trainers.listwise_reward import ListwiseRewardTrainer as trainer
        else:
            from trimtab.pipelines.trainers.grouped_reward import GroupedRewardTrainer as trainer

        metrics = fit(trainer, self, step)
        release_memory()
        return metrics | self._calibration(step)

    def _calibration(self, step: Step) -> dict[str, float]:
        from accelerate import PartialState

        source = self.calibrate or self.eval_data
        distributed = PartialState()
        metrics: dict[str, float] = {}
        if source is not None and distributed.is_main_process:
            rows = loading.load(source, (*step.path, "calibrate"))
            prompts, answers, settings = _answers(rows.select(range(min(CALIBRATED, len(rows)))))
            reward = schema.load_reward({"kind": "reward_model", "path": str(step.output)})
            outcomes = rewards.outcomes(reward, prompts, answers, **settings)
            scores = [outcome for outcome in outcomes if isinstance(outcome, float)]  # not those beyond the context
            mean, std = statistics.fmean(scores), statistics.pstdev(scores)
            record = {"mean": [mean], "std": [std], "answers": len(scores)}
            (step.output / "reward_calibration.json").write_text(json.dumps(record) + "\n")
            metrics = {"calibration/mean": mean, "calibration/std": std}
        distributed.wait_for_everyone()
        return metrics


def _answers(rows: Any) -> tuple[list, list, dict[str, Any]]:
    """Prompts, answers and what their templates are told, of rows in any of the forms.

    Without a prompt the answer holds the whole conversation.
    """
    prompts: list[Any] = []
    answers: list[Any] = []
    settings: dict[str, Any] = {column: [] for column in TEMPLATED if column in rows.column_names}
    for row in rows:
        if "completions" in row:
            of_row = row["completions"]
        else:
            of_row = [row[key] for key in ("chosen", "rejected", "completion") if key in row]
        prompts += [row.get("prompt") or ("" if isinstance(of_row[0], str) else [])] * len(of_row)
        answers += of_row
        for column, values in settings.items():
            values += [row[column]] * len(of_row)
    return prompts, answers, settings
