"""A text classifier, trained by transformers.Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, set_seed

from trimtab.pipelines.trainers.row_means import RowMeansTrainer
from trimtab.pipelines.trainers.seams.trl import disable_dropout_in_model


class ClassifierTrainer(RowMeansTrainer):
    """Takes rows with `text` and `label`, one of `classes`, whose order is that of their numbers 0, 1, ...

    The model's config names the classes. Logs `accuracy`, the share of texts whose label the model names.
    """

    def __init__(
        self,
        *,
        model: str,
        args: Any,
        classes: Sequence[int | str],
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        peft_config: Any = None,
        quantization_config: Any = None,
    ):
        set_seed(args.seed)  # before the new head and adapters are drawn
        options = {key: value for key, value in args.model_init_kwargs.items() if value is not None}
        # padded on the right, where a model with absolute positions does not notice it
        tokenizer = AutoTokenizer.from_pretrained(model, truncation_side="left", padding_side="right")
        network = AutoModelForSequenceClassification.from_pretrained(
            model,
            id2label=dict(enumerate(map(str, classes))),
            label2id={str(label): number for number, label in enumerate(classes)},
            quantization_config=quantization_config,
            **options,
        )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        network.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        if args.disable_dropout:
            disable_dropout_in_model(network)
        if peft_config is not None:
            from peft import get_peft_model

            network = get_peft_model(network, peft_config)
        numbers = {label: number for number, label in enumerate(classes)}

        def encoded(rows: Dataset | None) -> Dataset | None:
            if rows is None:
                return None

            def encode(texts: list[str], labels: list[Any]) -> dict[str, Any]:
                tokens = tokenizer(texts, truncation=True, max_length=args.max_length)
                return {**tokens, "labels": [numbers[label] for label in labels]}

            columns = ["text", "label"]
            return rows.map(encode, input_columns=columns, batched=True, remove_columns=rows.column_names)

        super().__init__(
            model=network,
            args=args,
            train_dataset=encoded(train_dataset),
            eval_dataset=encoded(eval_dataset),
            data_collator=TextCollator(tokenizer),
            processing_class=tokenizer,
        )

    def row_losses(self, model, inputs):
        labels, counts = inputs["labels"], inputs["counts"]
        texts = {name: value for name, value in inputs.items() if name not in ("labels", "counts")}
        logits = model(**texts).logits.float()
        losses = nn.functional.cross_entropy(
            logits, labels, reduction="none", label_smoothing=self.args.label_smoothing_factor
        )
        self.tally("accuracy", (logits.argmax(1) == labels).float(), counts)
        return losses, {"logits": logits}


class TextCollator(DataCollatorWithPadding):
    """Texts and their `labels` become tensors, with `counts` (rows,), which is True."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(features)
        batch["counts"] = torch.ones(len(features), dtype=torch.bool)
        return batch
