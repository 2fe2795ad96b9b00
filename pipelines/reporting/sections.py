"""What the sections of the page are filled with: results, evaluations, reward models and completions of the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipelines.planning import field_types
from trimtab.pipelines.reporting import plots
from trimtab.pipelines.reporting.numerals import finite, number, with_error
from trimtab.pipelines.reporting.records import (
    Record,
    json_object,
    json_rows,
    mapping,
    shown_of_log,
    shows,
    stage_class,
)

FOLDED = 480  # characters of a completion or prompt that are shown; the rest is folded away
ANSWERS = 4  # completions of one prompt, where a dataset of completions is shown
RESULTS = 2  # numbers of a step in the table of steps


def results(metrics: Mapping[str, Any], patterns: Sequence[str], count: int = RESULTS) -> list[tuple[str, str]]:
    """(name, value) of the first `count` metrics that match a pattern, or of the first ones where a kind names none.

    A mean of rewards is called by the reward alone: `gold` of `rewards/gold/mean`. Any other metric says what it is:
    `lambda gold` of `lambda/gold`.
    """
    logged = [key for key in metrics if finite(metrics[key])]
    bookkeeping = plots.matching(logged, plots.BOOKKEEPING)
    chosen = plots.matching(logged, patterns) if patterns else [key for key in logged if key not in bookkeeping]
    chosen = chosen[:count]
    rewards = plots.matching(chosen, ["rewards/*/mean"])
    names = {key: key.removeprefix("rewards/").removesuffix("/mean") if key in rewards else key for key in chosen}
    return [(names[key].replace("/", " "), number(metrics[key])) for key in chosen]


def evaluation(record: Record) -> dict[str, Any]:
    """The evaluation.json of a step, its `record`, the names of its `rewards`, and `gains`: what its row shows."""
    left = json_object(record["output"] / "evaluation.json", record["notes"])
    policies = {}
    for name, policy in mapping(left.get("policies")).items():
        if isinstance(policy, dict):
            parts = {key: mapping(policy.get(key)) for key in ("rewards", "difference", "win_rate")}
            policies[name] = policy | parts
    rewards = list(dict.fromkeys(reward for policy in policies.values() for reward in policy["rewards"]))
    samples = left.get("samples")
    examples = [mapping(sample) for sample in samples] if isinstance(samples, list) else []
    return {
        **left,
        "policies": policies,
        "rewards": rewards,
        "gains": _gains(policies, rewards[0])[:RESULTS] if rewards else [],
        "notes": [str(note) for note in left["notes"]] if isinstance(left.get("notes"), list) else [],
        "samples": [side_by_side(example.get("prompt"), mapping(example.get("policies"))) for example in examples],
        "record": record,
    }


def _gains(policies: Mapping[str, Any], reward: str) -> list[tuple[str, str]]:
    """(policy and reward, difference to the baseline) of each policy that has one."""
    differences = {name: policy["difference"].get(reward) for name, policy in policies.items()}
    return [(f"{name} on {reward}", with_error(gap, signed=True)) for name, gap in differences.items() if gap]


def side_by_side(prompt: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
    """One prompt with the completion and the scores of each policy."""
    policies = {}
    for name, answer in answers.items():
        given = mapping(answer)
        policies[name] = {"completion": given.get("completion"), "scores": mapping(given.get("scores"))}
    return {"prompt": prompt, "policies": policies}


def reward_model(record: Record) -> dict[str, Any]:
    """The numbers of a reward model's step; its pairs are those logged when its data was loaded."""
    logged = {key: value for row in record["rows"] for key, value in row.items() if finite(value)}
    logged |= {key: value for key, value in record["metrics"].items() if finite(value)}
    accuracy, pairs = logged.get("eval/accuracy"), logged.get("eval_data/rows")
    stderr = math.sqrt(max(0.0, accuracy * (1 - accuracy)) / pairs) if pairs and accuracy is not None else None
    field = getattr(stage_class(record), "__dataclass_fields__", {}).get("loss")
    return {
        "record": record,
        "loss": record["options"].get("loss") or (field_types.default(field) if field else None),
        "accuracy": {"mean": accuracy, "stderr": stderr},
        "logged": logged,
    }


def reward_report(record: Record) -> dict[str, Any]:
    """The reward_report.json of a step, whose rewards are checked to be mappings, and its `record`."""
    left = json_object(record["output"] / "reward_report.json", record["notes"])
    rewards = {}
    for name, numbers in mapping(left.get("rewards")).items():
        parts = ("accuracy", "calibration", "length", "subsets")
        rewards[name] = mapping(numbers) | {key: mapping(mapping(numbers).get(key)) for key in parts}
    subsets = list(dict.fromkeys(subset for numbers in rewards.values() for subset in numbers["subsets"]))
    policies = {policy: mapping(of_rewards) for policy, of_rewards in mapping(left.get("rounds")).items()}
    return {**left, "rewards": rewards, "subsets": subsets, "rounds": policies, "record": record}


def logged_by_rewards(record: Record) -> list[dict[str, Any]]:
    """By reward of a step, also inside others, what it has logged beside its scores and its class wants shown."""
    rows = []
    waiting = list(mapping(record["options"].get("rewards")).items())
    for name, given in waiting:
        block = mapping(given)
        waiting += [(f"{name}/{part}", inner) for part, inner in mapping(block.get("rewards")).items()]
        numbers = {
            title: {key: record["metrics"].get(f"rewards/{name}/{column}/{key}") for key in ("mean", "stderr")}
            for column, title in shown_of_log(block).items()
        }
        if any(finite(number["mean"]) for number in numbers.values()):
            failed = record["metrics"].get(f"rewards/{name.partition('/')[0]}/failed")
            rows.append({"record": record, "reward": name, "failed": failed, "numbers": numbers})
    return rows


def left_out(record: Record) -> dict[str, Any]:
    """By reason, how many rows a step has left out and the first of them; and its `record`."""
    metrics = record["metrics"]
    counts = {key.removeprefix("dropped/"): metrics[key] for key in metrics if key.startswith("dropped/")}
    examples = json_rows(record["output"] / "dropped.json", record["notes"]) if counts else []
    reasons = [(why, count, [row for row in examples if row.get("reason") == why]) for why, count in counts.items()]
    return {"reasons": reasons, "record": record}


def labels(record: Record) -> dict[str, Any]:
    """The numbers of a step that asked people: `all` together, `rows` of the table by rater, and its `record`."""
    left = json_object(record["output"] / "labels.json", record["notes"])
    raters = {str(name): mapping(numbers) for name, numbers in mapping(left.get("raters")).items()}
    rows = [*([("all", record["metrics"])] if len(raters) > 1 else []), *raters.items()]
    return {"rows": rows, "all": record["metrics"], "record": record}


def audited(record: Record) -> list[dict[str, Any]]:
    """What the audit has counted in each data block of a step: rows by source, those left out and warned about."""
    logged = {key: value for row in record["rows"] for key, value in row.items() if finite(value)}
    blocks = [key.removesuffix("/rows") for key in logged if key.endswith("/rows") and key.count("/") == 1]
    counts = []
    for block in blocks:
        outcomes = {}
        for outcome in ("dropped", "truncated", "warned"):
            start = f"{block}/{outcome}/"
            outcomes[outcome] = {key.removeprefix(start): logged[key] for key in logged if key.startswith(start)}
        sources = mapping(record["sources"].get(block))
        counts.append(
            {"record": record, "block": block, "rows": logged[f"{block}/rows"], "sources": sources, **outcomes}
        )
    return counts


def completions(records: Sequence[Record], samples: int) -> list[dict[str, Any]]:
    """The first rows of the last scored (or else sampled) dataset, by prompt, in the form of evaluation.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sampled = [record for record in records if record["done"] and shows(record).section == "completions"]
    scored = [record for record in sampled if any(key.startswith("rewards/") for key in record["metrics"])]
    if not sampled or samples < 1:
        return []
    record = (scored or sampled)[-1]
    try:
        table = pq.ParquetFile(record["output"] / "train.parquet")
        columns = [name for name in ("prompt", "completion", "scores") if name in table.schema_arrow.names]
        rows = next(table.iter_batches(16 * samples, columns=columns)).to_pylist()
    except (OSError, StopIteration, pa.ArrowException) as error:
        record["notes"].append(f"train.parquet cannot be read: {error or 'no rows'}")
        return []
    by_prompt: dict[str, list[Any]] = {}
    for row in rows:
        by_prompt.setdefault(text(row.get("prompt")), []).append(row)
    examples = []
    for prompt, answers in list(by_prompt.items())[:samples]:
        numbered = {f"completion {count}": answer for count, answer in enumerate(answers[:ANSWERS], start=1)}
        examples.append(side_by_side(prompt, numbered))
    return [{"samples": examples, "record": record}]


def text(value: Any) -> str:
    """A string or a list of chat messages as text; anything else as it prints."""
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return "\n".join(text(message.get("content")) for message in value)
    return "" if value is None else str(value)


def fold(value: Any) -> tuple[str, str]:
    """(what is shown, what is folded away) of a text, cut between words."""
    whole = text(value)
    if len(whole) <= 1.2 * FOLDED:
        return whole, ""
    spaces = (whole.rfind(space, FOLDED - 40, FOLDED) for space in " \n")
    end = max(spaces) + 1 or FOLDED
    return whole[:end], whole[end:]
