"""The numbers of a report on rewards, flat: as metrics that are compared over steps, and as rows of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Those that steps are compared by, and that `require` may name."""
    numbers: dict[str, float] = {}
    for name, of_reward in report["rewards"].items():
        numbers |= {f"{name}/accuracy/{key}": of_reward["accuracy"][key] for key in ("mean", "stderr", "ties")}
        numbers |= {f"{name}/calibration/{key}": of_reward["calibration"][key] for key in ("ece", "nll", "scale")}
        numbers |= {f"{name}/length/{key}": value for key, value in of_reward["length"].items()}
        for subset, of_subset in of_reward["subsets"].items():
            numbers[f"{name}/subset/{subset}/accuracy"] = of_subset["accuracy"]["mean"]
    for row in of_rounds(report):
        start = f"rounds/{row['round']}/{row['reward']}"
        numbers |= {f"{start}/{key}": value for key, value in row.items() if isinstance(value, float)}
    for pair in report["agreement"]:
        numbers["agreement/" + "/".join(pair["rewards"])] = pair["share"]
    return numbers


def of_rewards(report: Mapping[str, Any], numbers: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row for each reward, with the same columns in all of them."""
    names = list(report["rewards"])
    columns = dict.fromkeys(key.removeprefix(f"{name}/") for name in names for key in _of(name, numbers))
    return [{"reward": name, **{key: numbers.get(f"{name}/{key}") for key in columns}} for name in names]


def of_rounds(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each round and reward, with the same columns in all of them."""
    for policy, of_policy in report.get("rounds", {}).items():
        for name, of_reward in of_policy.items():
            last = (of_reward.get("best_of") or [{}])[-1]
            row: dict[str, Any] = {"round": policy, "reward": name}
            row |= {key: of_reward.get(key) for key in ("mean", "std", "length")}
            for key, measured in (("accuracy", of_reward.get("accuracy")), ("gold_of_best", last.get("gold"))):
                row[key], row[f"{key}_stderr"] = (measured or {}).get("mean"), (measured or {}).get("stderr")
            yield {**row, "best_of": last.get("n")}


def _of(reward: str, numbers: Mapping[str, float]) -> list[str]:
    return [key for key in numbers if key.startswith(f"{reward}/")]
