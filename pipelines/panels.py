"""What the report shows of each kind of stage: its curves, and its numbers in the table of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kind:
    """`panels`: title -> metrics (or patterns) of a learning curve. `results`: what the table of steps shows.

    With `by_round` the curves are those of the steps of a loop, one point each, instead of one step's.
    """

    panels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    results: Sequence[str] = ()
    by_round: bool = False


LOSS = ("train/loss", "eval/loss")
PREFERENCE = Kind(
    {"Loss": LOSS, "Reward margin": ("*/rewards/margins",), "Pairs ranked right": ("*/rewards/accuracies",)},
    ("eval/rewards/accuracies", "eval/loss", "train/loss"),
)
MONITOR = Kind(
    {
        "Reward": ("rewards/*/mean",),
        "Win rate against round 1": ("win_rate/*/mean",),
        "KL (nats)": ("kl/mean", "kl_trained/mean", "kl_bound"),
        "log E[exp(reward)]": ("exp_reward/*",),
        "Diversity": ("distinct_2/ratio", "vocabulary", "similarity"),
        "Real data (nats per token)": ("real_nll",),
        "Tokens": ("length/mean",),
        "Entropy (nats per token)": ("entropy",),
    },
    ("rewards/*/mean", "kl/mean"),
    by_round=True,
)
KINDS = {
    "world": Kind(results=("rows/sft/train", "rows/prompts/train")),
    "scratch": Kind(results=("parameters", "vocabulary")),
    "sft": Kind({"Loss": LOSS, "Token accuracy": ("*/mean_token_accuracy",)}, ("eval/loss", "train/loss")),
    "reward": Kind({"Loss": LOSS, "Accuracy": ("*/accuracy",)}, ("eval/accuracy", "eval/loss", "train/loss")),
    "dpo": PREFERENCE,
    "prefer": PREFERENCE,
    "sample": Kind(results=("completions", "length", "truncated")),
    "score": Kind(results=("rewards/*/mean",)),
    "pair": Kind(results=("rows", "mean_gap")),
    "constrained": Kind(
        {
            "* and its threshold": ("train/rewards/*/mean", "train/thresholds/*"),
            "Multipliers": ("train/multipliers/*",),
            "lambda (multiplier in units of the task)": ("train/lambda/*",),
            "Rewards": ("train/rewards/*/mean",),
            "Best metric of the thresholds tried": ("train/search/best",),
            "Variance explained by the critics": ("train/critics/*/explained",),
            "KL (nats per token)": ("train/kl",),
            "Tokens": ("train/completions/mean_length",),
            "Entropy (nats per token)": ("train/entropy",),
        },
        ("lambda/*",),
    ),
    "surface": Kind(results=("thresholds/*", "metric/best")),
    "extrapolate": Kind(results=("relative_step", "step_norm")),
    "monitor": MONITOR,
    "curate": Kind(
        {
            "Reward": ("reward/*",),
            "Selection entropy (share of log K)": ("entropy_share",),
            "Increment of E[exp(reward)]": ("increment/realised", "increment/expected", "increment/guaranteed"),
        },
        ("kept", "reward/kept", "entropy_share"),
        by_round=True,
    ),
    "mix": Kind({"Share of real rows": ("real_fraction",)}, ("rows", "real_fraction"), by_round=True),
}
