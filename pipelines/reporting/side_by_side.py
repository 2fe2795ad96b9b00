"""An evaluation of several policies as lines of text."""

from __future__ import annotations

import math
from typing import Any


def summary(result: dict[str, Any]) -> str:
    """The evaluation as text: one line per policy, mean +- standard error, win rate against the baseline."""
    rewards = list(next(iter(result["policies"].values()))["rewards"])
    head = [f"{result['prompts']} prompts x {result['completions_per_prompt']}"]
    for reward in rewards:
        head += [reward, f"wins vs {result['baseline']}"]
    table = [[*head, "KL", "tokens", "distinct-2"]]
    notes = list(result["notes"])
    notes += [
        f"{name}: {_number(policy['spent'])} tokens were spent on each completion"
        for name, policy in result["policies"].items()
        if "spent" in policy
    ]
    for name, policy in result["policies"].items():
        table.append([name, *_cells(policy, rewards)])
        for reward, gap in policy.get("difference", {}).items():
            fair = policy["win_rate"][reward]["equal_length"]
            notes.append(
                f"{name} - {result['baseline']}, {reward}: {_gap(gap)}; at equal length it wins {_rate(fair)}"
            )
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
    return "\n".join([*lines, *notes]) + "\n"


def _cells(policy: dict[str, Any], rewards: list[str]) -> list[str]:
    cells = []
    for reward in rewards:
        wins = policy.get("win_rate", {}).get(reward)
        cells.append(_number(policy["rewards"][reward]))
        cells.append(_rate(wins) if wins else "-")
    return [*cells, _number(policy["kl"]), f"{policy['length']['mean']:.1f}", f"{policy['distinct_2']:.3f}"]


def _gap(gap: dict[str, float]) -> str:
    measured = f"{gap['mean']:+.3f} +- {gap['stderr']:.3f}"
    if not gap["stderr"]:
        return measured
    return f"{measured} ({gap['mean'] / gap['stderr']:+.1f} standard errors)"


def _rate(wins: dict[str, float]) -> str:
    return f"{wins['rate']:.2f} [{wins['low']:.2f}, {wins['high']:.2f}]"


def _number(numbers: dict[str, float] | None) -> str:
    if numbers is None or math.isnan(numbers["mean"]):
        return "-"
    return f"{numbers['mean']:z.3f} +- {numbers['stderr']:.3f}"
