"""What the report shows of a kind of stage, as the class of the stage says it: `shows: ClassVar = Shows(...)`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

LOSS = ("train/loss", "eval/loss")
OF_ANY_TRAINING = {  # panels below those of its kind
    "Learning rate, refined and before": ("schedule/*",),
    "Largest weights (1 is the wall that weight decay sets)": ("box/*",),
}


@dataclass(frozen=True)
class Shows:
    """Curves and numbers of a step, and the section of the page that its artifact fills.

    `panels` maps the title of a learning curve to the metrics (or patterns) in it, `results` are those that the table
    of steps shows, and by those in `compares` the points of a sweep are compared. A terminal shows those in `watches`
    while a training goes, the first three in a bar, or with `table` eight in a row for each log. With `by_round` the
    curves are those of the steps of a loop, one point each, instead of one step's. `section` says what the artifact
    is: an `evaluation` (with its evaluation.json), a `reward model` with its accuracy, a `reward report` (with its
    reward_report.json), `labels` by people (with their labels.json), a dataset of which rows are `left out` (with
    their dropped.json), or one of `completions`.
    """

    panels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    results: Sequence[str] = ()
    compares: Sequence[str] = ()
    watches: Sequence[str] = ("train/loss",)
    table: bool = False
    by_round: bool = False
    section: Literal["evaluation", "reward model", "reward report", "labels", "left out", "completions", None] = None


PREFERENCE = Shows(
    {
        "Loss": LOSS,
        "Reward margin": ("*/rewards/margins", "*/margins"),
        "Pairs ranked right": ("*/rewards/accuracies",),
    },
    ("eval/rewards/accuracies", "eval/loss", "train/loss"),
    ("eval/rewards/accuracies",),
    watches=("train/loss", "train/rewards/accuracies", "train/rewards/margins"),
)
ROLLOUTS = Shows(
    {
        "Rewards": ("train/rewards/*/mean",),
        "KL (nats per token)": ("train/kl",),
        "Tokens": ("train/completions/mean_length",),
        "Entropy (nats per token)": ("train/entropy",),
    },
    ("eval/rewards/*/mean",),
    ("eval/rewards/*/mean",),
    watches=("train/rewards/*/mean", "train/kl", "train/completions/mean_length", "train/entropy", "train/loss"),
    table=True,
)
