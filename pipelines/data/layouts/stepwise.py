"""Layout `stepwise`: solutions with a label for each step, as process reward models read them. They are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.data.layouts import Layout, Row

if TYPE_CHECKING:
    from datasets import Features


@dataclass(kw_only=True)
class Stepwise(Layout):
    """Knows three layouts: `labels` beside `completions`, a `label` with `steps`, and a `label` of marks in a text."""

    title: ClassVar[str] = "of step-labelled data"
    columns: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("prompt", "completions", "labels"),
        ("question", "label"),
        ("input", "label", "task"),
    )
    refusal: ClassVar[str | None] = (
        "these rows have a label for each step of a solution, and no stage trains a process reward model on them: "
        "make pairs or labels of whole answers, for example by whether the last step is right"
    )

    @classmethod
    def fits(cls, features: Features, first: Row) -> bool:
        if {"prompt", "completions", "labels"} <= set(features):
            labels = first["labels"]
            return isinstance(labels, list) and all(isinstance(label, bool | int) for label in labels)
        if {"question", "label"} <= set(features):
            return isinstance(first["label"], dict) and "steps" in first["label"]
        return {"input", "label", "task"} <= set(features) and isinstance(first["label"], str)
