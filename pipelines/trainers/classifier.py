"""A text classifier, trained by transformers.Trainer."""

from __future__ import annotations

from functools import partial
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, set_seed

from trimtab.pipelines.trainers.seams.trl import disable_dropout_in_model


class ClassifierTrainer(Trainer):
    """`train_dataset` has the columns `text` and `label` (0, 1, ...). Logs the accuracy on `eval_dataset`."""

    def __init__(
        self,
        *,
        model: str,
        args: Any,
        train_dataset: Dataset,
        eval_dataset: Dataset | None,
        peft_config: Any = None,
        quantization_config: Any = None,
    ):
        set_seed(args.seed)  # before the new head and adapters are drawn
        options = {key: value for key, value in args.model_init_kwargs.items() if value is not None}
        tokenizer = AutoTokenizer.from_pretrained(model, truncation_side="left")
        classes = max(train_dataset["label"]) + 1
        network = AutoModelForSequenceClassification.from_pretrained(
            model, num_labels=classes, quantization_config=quantization_config, **options
        )
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        network.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        if args.disable_dropout:
            disable_dropout_in_model(network)
        if peft_config is not None:
            from peft import get_peft_model

            network = get_peft_model(network, peft_config)

        def encoded(rows: Dataset | None) -> Dataset | None:
            if rows is None:
                return None
            tokenize = partial(tokenizer, truncation=True, max_length=args.max_length)
            others = [column for column in rows.column_names if column != "label"]
            return rows.map(tokenize, input_columns="text", batched=True, remove_columns=others)

        super().__init__(
            model=network,
            args=args,
            train_dataset=encoded(train_dataset),
            eval_dataset=encoded(eval_dataset),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
            compute_metrics=_accuracy,
        )


def _accuracy(evaluation: Any) -> dict[str, float]:
    return {"accuracy": float((evaluation.predictions.argmax(-1) == evaluation.label_ids).mean())}
