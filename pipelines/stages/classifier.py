"""Kind `classifier`: a text classifier from texts with labels, such as the intent of an utterance.

    classifier: {model: {model_name_or_path: FacebookAI/roberta-base}, data: $dialogues/labels,
                 train: {learning_rate: 2e-5, num_train_epochs: 2, max_length: 128}}

`label` is a word or a whole number. The classes are the labels of `data`, sorted, and the model's config has them as
`id2label`; `eval_data` may have no others. `train` holds trl.RewardConfig's keys, which are those of sequence
classification. The artifact is a sequence-classification model; `eval/accuracy` is the share of texts whose label it
names.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import trl

from trimtab.pipelines.data import labels, loading
from trimtab.pipelines.data.forms import LABELLED, Data
from trimtab.pipelines.forecasting import trainers
from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Classifier(TrainerStage):
    """Texts are cut on the left to `train.max_length` tokens: their ends matter."""

    model: trl.ModelConfig
    data: Annotated[Data, LABELLED]
    eval_data: Annotated[Data | None, LABELLED] = None
    train: trl.RewardConfig

    head: ClassVar[Literal["words", "score"] | None] = "score"
    cuts_by_tokens: ClassVar[bool] = True
    shows: ClassVar[Shows] = Shows(
        {"Loss": LOSS, "Accuracy": ("*/accuracy",)},
        ("eval/accuracy", "eval/loss", "train/loss"),
        ("eval/accuracy",),
        watches=("train/loss", "train/accuracy", "train/learning_rate"),
    )

    def work(self, known: Known) -> Work:
        return trainers.offline(self, known, trainers.Shape(head="score"))

    def check(self, step: Step) -> None:
        super().check(step)
        if not self._is_pending(self.data, step):
            known = self._classes(step)
            if self.eval_data is not None and not self._is_pending(self.eval_data, step):
                place = (*step.path, "eval_data")
                labels.check(loading.load(self.eval_data, place)["label"], known, _source(self.eval_data), place)

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.classifier import ClassifierTrainer

        self.model.lora_task_type = "SEQ_CLS"
        return fit(ClassifierTrainer, self, step, classes=self._classes(step))

    def _classes(self, step: Step) -> list[labels.Label]:
        place = (*step.path, "data")
        return labels.classes(loading.load(self.data, place)["label"], _source(self.data), place)

    def _is_pending(self, data: trl.DatasetMixtureConfig, step: Step) -> bool:
        return any(map(step.pending, chain.from_iterable(map(loading.files, data.datasets))))


def _source(data: Any) -> str:
    return ", ".join(chain.from_iterable(map(loading.files, data.datasets)))
