"""What an evaluation decides, in words with numbers: which policy is better, by how many errors, and what it cost."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipelines.reporting.numerals import finite, in_errors, number, with_error
from trimtab.pipelines.reporting.records import Record, mapping
from trimtab.pipelines.reporting.sections import text

CLEAR = 2.0  # standard errors from which a difference is called one


def words(evaluation: Mapping[str, Any]) -> list[str]:
    """A sentence for each policy beside the baseline, the best on the first reward in front."""
    policies, baseline, rewards = evaluation["policies"], evaluation.get("baseline"), evaluation["rewards"]
    others = [name for name in policies if name != baseline and policies[name]["difference"]]
    if not others or not rewards:
        return []
    others.sort(key=lambda name: -_gap(policies[name], rewards[0]))
    sentences = [
        _sentence(name, policies[name], rewards, mapping(policies.get(baseline)), baseline) for name in others
    ]
    best = others[0]
    beside = [name for name in others[1:] if not _are_apart(policies[best], policies[name], rewards[0])]
    if _errors(policies[best], rewards[0]) < CLEAR:
        lead = f"No policy is clearly better than {baseline} on {rewards[0]}, the first reward."
    elif beside:
        lead = f"{best} is ahead on {rewards[0]}, the first reward, and not clearly apart from {', '.join(beside)}."
    else:
        lead = f"{best} is the best on {rewards[0]}, the first reward."
    return [lead, *sentences]


def _are_apart(best: Mapping[str, Any], other: Mapping[str, Any], reward: str) -> bool:
    """Whether two policies' differences to the baseline differ, by their errors as if they were independent."""
    given = [mapping(policy["difference"].get(reward)).get("stderr") for policy in (best, other)]
    errors = [error for error in given if finite(error)]
    if len(errors) < len(given):
        return False
    return _gap(best, reward) - _gap(other, reward) >= CLEAR * math.hypot(*errors)


def _sentence(name: str, policy: Mapping[str, Any], rewards: Sequence[str], base: Mapping[str, Any], than: Any) -> str:
    sorted_by: dict[str, list[str]] = {"better": [], "worse": [], "no different": []}
    for reward in rewards:
        difference = policy["difference"].get(reward)
        if not difference:
            continue
        errors = _errors(policy, reward)
        word = "no different" if abs(errors) < CLEAR else "better" if errors > 0 else "worse"
        shown = reward if word == "no different" else f"{reward} by {with_error(difference)} ({in_errors(difference)})"
        sorted_by[word].append(shown.replace("by −", "by "))
    said = [f"{word} on {', '.join(listed)}" for word, listed in sorted_by.items() if listed]
    cost = []
    kl, length, before = (
        mapping(part).get("mean") for part in (policy.get("kl"), policy.get("length"), base.get("length"))
    )
    if finite(kl):
        cost.append(f"KL {number(kl)} nats")
    if finite(length) and finite(before) and before:
        cost.append(f"{100 * (length / before - 1):+.0f}% tokens".replace("-", "−"))
    return f"{name} is {'; '.join(said)} than {than}" + (f", at {' and '.join(cost)}." if cost else ".")


def thresholds(record: Record) -> list[dict[str, Any]]:
    """Each reward of a step that is held at a threshold: what it reached in the end, and whether that is enough."""
    rows = []
    for name, block in mapping(record["options"].get("rewards")).items():
        threshold = record["metrics"].get(f"thresholds/{name}", mapping(block).get("threshold"))
        key = f"train/rewards/{name}/mean"
        logged = [row[key] for row in record["rows"] if finite(row.get(key))]
        if not finite(threshold) or not logged:
            continue
        last = logged[-max(1, len(logged) // 5) :]  # the last fifth, since single rollouts are noisy
        reached = sum(last) / len(last)
        rows.append({"reward": name, "threshold": threshold, "reached": reached, "gap": reached - threshold,
                     "multiplier": record["metrics"].get(f"lambda/{name}")})  # fmt: skip
    return rows


def most_different(samples: Sequence[Mapping[str, Any]], reward: str) -> list[Mapping[str, Any]]:
    """The samples sorted by how far apart the policies' scores are, widest first."""

    def spread(sample: Mapping[str, Any]) -> float:
        scores = [answer["scores"].get(reward) for answer in sample["policies"].values()]
        numbers = [score for score in scores if finite(score)]
        return max(numbers) - min(numbers) if numbers else 0.0

    return sorted(samples, key=spread, reverse=True)


def marked(completion: Any, baseline: Any) -> list[tuple[bool, str]]:
    """A completion in pieces, each with whether its words are not in the baseline's at that place."""
    ours, theirs = (re.findall(r"\S+\s*", text(value)) for value in (completion, baseline))
    matcher = difflib.SequenceMatcher(
        a=[word.strip() for word in theirs], b=[word.strip() for word in ours], autojunk=False
    )
    return [
        (tag != "equal", "".join(ours[start:end])) for tag, _, _, start, end in matcher.get_opcodes() if end > start
    ]


def _gap(policy: Mapping[str, Any], reward: str) -> float:
    mean = mapping(policy["difference"].get(reward)).get("mean")
    return mean if finite(mean) else float("-inf")


def _errors(policy: Mapping[str, Any], reward: str) -> float:
    """A difference in its standard errors; 0 where one of them is missing."""
    difference = mapping(policy["difference"].get(reward))
    mean, stderr = difference.get("mean"), difference.get("stderr")
    return mean / stderr if finite(mean) and finite(stderr) and stderr > 0 else 0.0
