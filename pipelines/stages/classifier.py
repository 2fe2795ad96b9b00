"""Kind `classifier`: a text classifier from texts with labels, such as the intent of an utterance.

    classifier: {model: {model_name_or_path: FacebookAI/roberta-base}, data: $dialogues/labels,
                 train: {learning_rate: 2e-5, num_train_epochs: 2, max_length: 128}}

`label` counts from 0. `train` holds trl.RewardConfig's keys, which are those of sequence classification. The artifact
is a sequence-classification model; `eval/accuracy` is the share of texts whose label it names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import trl

from trimtab.pipelines.data.forms import LABELLED, Data
from trimtab.pipelines.reporting.shows import LOSS, Shows
from trimtab.pipelines.stages import Metrics, TrainerStage
from trimtab.pipelines.training.fit import fit

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Classifier(TrainerStage):
    """Texts are cut on the left to `train.max_length` tokens: their ends matter."""

    model: trl.ModelConfig
    data: Annotated[Data, LABELLED]
    eval_data: Annotated[Data | None, LABELLED] = None
    train: trl.RewardConfig

    shows: ClassVar[Shows] = Shows(
        {"Loss": LOSS, "Accuracy": ("eval/accuracy",)}, ("eval/accuracy", "eval/loss", "train/loss")
    )

    def run(self, step: Step) -> Metrics:
        from trimtab.pipelines.trainers.classifier import ClassifierTrainer

        self.model.lora_task_type = "SEQ_CLS"
        return fit(ClassifierTrainer, self, step)
