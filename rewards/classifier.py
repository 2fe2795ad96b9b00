"""Reward kind `classifier`: 1 where a classifier finds in a completion the class that a column asks for, otherwise 0.

    rewards: {intent: {kind: classifier, path: $intent, column: intent}}

The classifier is a sequence-classification checkpoint, such as that of a `classifier` stage. It reads the prompt's
last `turns` turns and the completion, joined by `separator` and ended with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards import text

BATCH = 64  # texts


@dataclass(kw_only=True)
class Classifier:
    """`labels` are the column's values in the order of the classes; left out, those that the checkpoint names.

    A checkpoint that names none has the classes 0, 1, ... With `probability: true` the score is the class's
    probability. Raises ValueError for a checkpoint with another number of classes or the same ones in another order,
    and for a label that is none of them.
    """

    path: str
    column: str = "label"
    labels: list[int | str] = field(default_factory=list)
    separator: str = "\n"
    turns: int = 1
    max_length: int = 512
    probability: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        if self.turns < 0 or self.max_length < 1 or not self.separator:
            raise ValueError("classifier: `turns` is at least 0, `max_length` at least 1, `separator` not empty")
        self._model: Any = None
        self._classes: list[str] = []

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float]:
        import torch

        from trimtab.rewards._arithmetic import passing

        if not completions:
            return []
        if self.column not in columns:
            raise ValueError(f"classifier: the data has no column {self.column!r} (it has: {', '.join(columns)})")
        self.load()
        asked_for = list(map(_name, columns[self.column]))
        unknown = sorted(set(asked_for) - set(self._classes))
        if unknown:
            raise ValueError(f"classifier: {self.column} {unknown[0]} is none of {', '.join(self._classes)}")
        wanted = list(map(self._classes.index, asked_for))
        texts = [self.render(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        shape = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        scores: list[float] = []
        for start in range(0, len(texts), BATCH):
            batch = self._tokenizer(texts[start : start + BATCH], **shape)
            ids, mask = (batch[key].to(self._model.device) for key in ("input_ids", "attention_mask"))
            with torch.no_grad(), passing(self._model.device):
                logits = self._model(input_ids=ids, attention_mask=mask).logits.float()
            asked = torch.tensor(wanted[start : start + BATCH], device=logits.device)
            if self.probability:
                scores += logits.softmax(-1).gather(1, asked[:, None])[:, 0].tolist()
            else:
                scores += (logits.argmax(1) == asked).float().tolist()
        return scores

    def render(self, prompt: Any, completion: Any) -> str:
        """What the classifier reads."""
        before = [turn.strip() for turn in text(prompt).split(self.separator) if turn.strip()]
        turns = [*before[len(before) - self.turns :], text(completion).replace(self.separator, " ").strip()]
        return "".join(f"{turn}{self.separator}" for turn in turns)

    def load(self) -> None:
        """Loads the checkpoint, unless it is loaded. Called by the first call."""
        if self._model is not None:
            return
        import torch
        from accelerate import PartialState
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        from trimtab.rewards._alignment import align
        from trimtab.rewards._arithmetic import rounded

        model = AutoModelForSequenceClassification.from_pretrained(self.path)
        trained = _classes(model.config.id2label)
        classes = list(map(_name, self.labels)) or trained
        if len(classes) != len(trained):
            raise ValueError(f"{self.path} has {len(trained)} classes, and `labels` names {len(classes)}")
        if set(classes) == set(trained) and classes != trained:
            raise ValueError(f"{self.path} has its classes in the order {', '.join(trained)}: leave `labels` out")
        self._classes = classes
        self._tokenizer = AutoTokenizer.from_pretrained(self.path, truncation_side="left")
        align(model)
        place = torch.device(self.device or PartialState().device)
        self._model = rounded(model, place).to(place).eval()


def _classes(names: dict[int, str]) -> list[str]:
    """A checkpoint's classes in their order, by number where it has no names of its own."""
    nameless = all(name == f"LABEL_{number}" for number, name in names.items())
    return [str(number) if nameless else names[number] for number in sorted(names)]


def _name(label: Any) -> str:
    """A label as a checkpoint's config has it, also where a table has made a float of a whole number."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
