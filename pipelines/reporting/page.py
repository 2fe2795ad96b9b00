"""The page of a run, from what its steps left: done.json, metrics.jsonl, evaluation.json and completions.

What is missing or broken there is said on the page and stops nothing. Text that a model or a dataset wrote is always
escaped. What of a kind is shown says its class (`shows`); one that is not known is drawn without further ado.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.recording import artifacts, tracking
from trimtab.pipelines.reporting import plots
from trimtab.pipelines.reporting.shows import Shows

SHOWN = 480  # characters of a completion or prompt; the rest is folded away
ANSWERS = 4  # completions of one prompt, where a dataset of completions is shown


def shows(record: Mapping[str, Any]) -> Shows:
    """What the class of a step's kind says of it."""
    try:
        return kinds.find(kinds.STAGES, record["kind"]).shows
    except (RecipeError, ImportError, AttributeError):  # of a step that is no more, or was never of ours
        return Shows()


def read(output: Path) -> dict[str, Any]:
    """What the step with the artifact `output` left: its done.json, `done`, `output`, `name`, `rows` and `notes`."""
    notes: list[str] = []
    record = _json(output.parent / "done.json", notes)
    name, _, mark = output.parent.name.rpartition("-")
    kept = {key: str(record.get(key) or default) for key, default in (("kind", ""), ("fingerprint", mark))}
    kept |= {key: _dict(record.get(key)) for key in ("metrics", "options", "inputs", "versions", "files")}
    try:
        rows = [row for row in tracking.read(output.parent / "metrics.jsonl") if isinstance(row, dict)]
    except (OSError, ValueError) as error:
        rows = []
        notes.append(f"metrics.jsonl cannot be read: {error}")
    if not record and not notes:
        notes.append(f"{output} has no done.json: the step is not finished, or it is no step of a recipe")
    kept["inputs"] = {step: str(mark) for step, mark in kept["inputs"].items()}
    kept |= {"done": bool(record), "name": str(record.get("step") or name or output.name)}
    return {**record, **kept, "output": output, "rows": rows, "notes": notes}


def render(records: Sequence[dict[str, Any]], samples: int, recipe: str) -> str:
    """The page of the steps that `read` has read."""
    import jinja2
    from markupsafe import Markup

    evaluations = [evaluation(record) for record in records if shows(record).section == "evaluation"]
    place = {(record["name"], record["fingerprint"]): i for i, record in enumerate(records)}
    lanes = plots.chain([[place[i] for i in r["inputs"].items() if i in place] for r in records])
    _gather_rounds(records)
    for record, lane in zip(records, lanes, strict=True):
        about = shows(record)
        record["lane"] = Markup(lane)
        record["curves"] = [(title, Markup(svg)) for title, svg in plots.curves(record["rows"], about.panels)]
        record["results"] = results(record["metrics"], about.results)
    for found in evaluations:
        found["record"]["results"] = found["gains"]
    versions = [record["versions"] for record in records if record["versions"]]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "error": with_error, "duration": duration, "percent": percent}
    environment.filters |= {"errors": in_errors, "cut": cut, "yaml": _yaml}
    return environment.get_template("report.html.j2").render(
        recipe=next((record["recipe"] for record in records if record.get("recipe")), recipe),
        steps=records,
        finished=max((str(record["finished"]) for record in records if record.get("finished")), default=None),
        seconds=sum(r["seconds"] for r in records if plots.finite(r.get("seconds"))),
        seeds=list(dict.fromkeys(str(record["seed"]) for record in records if record.get("seed") is not None)),
        versions={k: v for k, v in versions[0].items() if all(o.get(k) == v for o in versions)} if versions else {},
        evaluations=evaluations,
        rewards=[reward_model(record) for record in records if shows(record).section == "reward model"],
        completions=[] if evaluations else completions(records, samples),
        samples=samples,
        interval=lambda win: Markup(plots.interval(*map(_dict(win).get, ("low", "rate", "high")))),
    )


def _gather_rounds(records: list[dict[str, Any]]) -> None:
    """Of a loop's steps of one kind, the last one draws the metrics of all, round by round."""
    loops: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if shows(record).by_round and "stopped" not in record["metrics"]:
            loops.setdefault((str(record.get("stage")), record["kind"]), []).append(record)
    for rounds in loops.values():
        rows = [{"step": at, **record["metrics"]} for at, record in enumerate(rounds, start=1)]
        for record in rounds:
            record["rows"] = rows if record is rounds[-1] else []


def results(metrics: Mapping[str, Any], patterns: Sequence[str]) -> list[tuple[str, str]]:
    """(name, value) of the first two that match, or of all where a kind names none; `*` stands for the name."""
    first = [key for key in metrics if plots.finite(metrics[key]) and not plots.matching([key], plots.BOOKKEEPING)]
    found = {}
    for pattern in patterns or first:
        before, _, after = pattern.partition("*")
        for key in plots.matching(metrics, [pattern]):
            name = key.removeprefix(before).removesuffix(after) if "*" in pattern else key
            found[name.replace("/", " ")] = metrics[key]
    return [(name, number(value)) for name, value in found.items() if plots.finite(value)][:2]


def evaluation(record: dict[str, Any]) -> dict[str, Any]:
    """evaluation.json of a step of kind `compare`, with `rewards`: their names, and `gains`: what its row shows."""
    found = _json(record["output"] / "evaluation.json", record["notes"])
    policies = {name: policy for name, policy in _dict(found.get("policies")).items() if isinstance(policy, dict)}
    for name, policy in policies.items():
        policies[name] = policy | {key: _dict(policy.get(key)) for key in ("rewards", "difference", "win_rate")}
    rewards = list(dict.fromkeys(reward for policy in policies.values() for reward in policy["rewards"]))
    gains = [
        (f"{name} on {reward}", with_error(policy["difference"][reward], signed=True))
        for name, policy in policies.items()
        for reward in rewards[:1]
        if reward in policy["difference"]
    ]
    samples = found.get("samples") if isinstance(found.get("samples"), list) else []
    found["samples"] = [side_by_side(s.get("prompt"), _dict(s.get("policies"))) for s in map(_dict, samples)]
    return {**found, "policies": policies, "rewards": rewards, "gains": gains[:2], "record": record}


def side_by_side(prompt: Any, answers: Mapping[str, Any]) -> dict[str, Any]:
    """One prompt with the completion and the scores of each policy."""
    rows = {name: _dict(answer) for name, answer in answers.items()}
    return {
        "prompt": prompt,
        "policies": {
            n: {"completion": a.get("completion"), "scores": _dict(a.get("scores"))} for n, a in rows.items()
        },
    }


def reward_model(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a reward model's step; pairs are those logged when its data was loaded."""
    logged = {key: value for row in record["rows"] for key, value in row.items() if plots.finite(value)}
    logged |= {key: value for key, value in record["metrics"].items() if plots.finite(value)}
    accuracy, pairs = logged.get("eval/accuracy"), logged.get("eval_data/pairs")
    stderr = math.sqrt(max(0.0, accuracy * (1 - accuracy)) / pairs) if pairs and accuracy is not None else None
    return {"record": record, "accuracy": {"mean": accuracy, "stderr": stderr}, "logged": logged}


def completions(records: Sequence[dict[str, Any]], samples: int) -> list[dict[str, Any]]:
    """The first rows of the last scored (or else sampled) dataset, by prompt, in the form of evaluation.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sampled = [record for record in records if record["done"] and shows(record).section == "completions"]
    scored = [record for record in sampled if any(key.startswith("rewards/") for key in record["metrics"])]
    if not sampled or samples < 1:
        return []
    record, grouped = (scored or sampled)[-1], {}
    try:
        table = pq.ParquetFile(record["output"] / "train.parquet")
        columns = [name for name in ("prompt", "completion", "scores") if name in table.schema_arrow.names]
        rows = next(table.iter_batches(16 * samples, columns=columns)).to_pylist()
    except (OSError, StopIteration, pa.ArrowException) as error:
        record["notes"].append(f"train.parquet cannot be read: {error or 'no rows'}")
        return []
    for row in rows:
        grouped.setdefault(text(row.get("prompt")), []).append(row)
    shown = [
        side_by_side(prompt, {f"completion {n}": answer for n, answer in enumerate(answers[:ANSWERS], 1)})
        for prompt, answers in list(grouped.items())[:samples]
    ]
    return [{"samples": shown, "record": record}]


def text(value: Any) -> str:
    """A string or a list of chat messages as text; anything else as it prints."""
    if isinstance(value, list) and all(isinstance(message, dict) for message in value):
        return "\n".join(text(message.get("content")) for message in value)
    return "" if value is None else str(value)


def cut(value: Any) -> tuple[str, str]:
    """(what is shown, what is folded away) of a text, cut between words."""
    whole = text(value)
    if len(whole) <= 1.2 * SHOWN:
        return whole, ""
    at = max(whole.rfind(" ", SHOWN - 40, SHOWN), whole.rfind("\n", SHOWN - 40, SHOWN)) + 1 or SHOWN
    return whole[:at], whole[at:]


def number(value: Any, signed: bool = False) -> str:
    """Four digits of a number, with a true minus; a dash for what is none."""
    if not plots.finite(value):
        return str(value) if isinstance(value, str) else "–"
    whole = float(value).is_integer() and abs(value) < 1e15
    shown = f"{value:+,.0f}" if whole else f"{value:+.2e}" if not 1e-3 <= abs(value) < 1e5 else f"{value:+.4g}"
    return (shown if signed else shown.lstrip("+")).replace("-", "−")


def with_error(value: Any, signed: bool = False) -> str:
    """A mean ± its standard error, both to the error's second digit."""
    mean, stderr = map(_dict(value).get, ("mean", "stderr"))
    if not plots.finite(mean):
        return "–"
    known = plots.finite(stderr)
    places = min(4, max(0, 1 - math.floor(math.log10(stderr)))) if known and stderr > 0 else 3
    shown = f"{mean:{'+' if signed else ''}z.{places}f}".replace("-", "−")
    return f"{shown} ± {stderr:.{places}f}" if known else shown


def in_errors(gap: Any) -> str:
    """A difference in units of its standard error."""
    mean, stderr = map(_dict(gap).get, ("mean", "stderr"))
    known = plots.finite(mean) and plots.finite(stderr) and stderr > 0
    return f"{mean / stderr:+.1f} s.e.".replace("-", "−") if known else "–"


def percent(value: Any, unit: str = "%") -> str:
    return f"{100 * value:.1f}{unit}" if plots.finite(value) else "–"


def duration(seconds: Any) -> str:
    """ "1 h 05 min", "3 min 20 s" or "4.2 s"."""
    if not plots.finite(seconds):
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02} min"


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).strip()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(path: Path, notes: list[str]) -> dict[str, Any]:
    """A JSON object, or an empty one with a note of what is wrong."""
    try:
        value = artifacts.read_done(path.parent) if path.name == "done.json" else json.loads(path.read_text())
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return {}
    if isinstance(value, dict):
        return value
    if value is not None:
        notes.append(f"{path.name} holds no JSON object")
    return {}
