"""Kind `classifier`: a text classifier from texts with labels, such as the intent of an utterance.

    classifier: {model: {model_name_or_path: FacebookAI/roberta-base}, data: $dialogues/labels,
                 train: {learning_rate: 2e-5, num_train_epochs: 2, max_length: 128}}

`label` counts from 0. `train` holds trl.RewardConfig's keys, which are those of sequence classification. The artifact
is a sequence-classification model; `eval/accuracy` is the share of labels found.
"""

from __future__ import annotations

from dataclasses import dataclass

import trl

from pipelines import training
from pipelines.data import Data
from pipelines.stages import Stage

LABELLED = (("text", "label"),)


@dataclass(kw_only=True)
class Classifier(Stage):
    """Texts are cut on the left to `train.max_length` tokens: their ends matter."""

    model: trl.ModelConfig
    data: Data
    eval_data: Data | None = None
    train: trl.RewardConfig

    def check(self, step):
        training.check(self, step, LABELLED)

    def run(self, step):
        from pipelines.trainers.classifier import ClassifierTrainer

        self.model.lora_task_type = "SEQ_CLS"
        return training.fit(ClassifierTrainer, self, step)
