"""The model card of a step: what the model is, what it came from, by which numbers it was trained, and how it did."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import hub
from trimtab.pipelines.planning.files import fingerprint
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting import keys, sections
from trimtab.pipelines.reporting.numerals import number, with_error
from trimtab.pipelines.reporting.records import Record, mapping, shows

OF_TRL = "trl"


def render(record: Record, others: Sequence[Record], *, recipe: str = "", commit: str = "") -> str:
    """The card of a model in Markdown; `others` are the finished steps of its run, `recipe` the YAML of it."""
    lineage = _lineage(record, others)
    parts = [
        _front(lineage, record),
        f"# {record['recipe'] or 'A model'}: {record['name']}\n",
        f"Step `{record['name']}` (`{record['kind']}`, fingerprint `{record['fingerprint']}`), made by Trimtab.",
        *_section("Lineage", _steps(lineage)),
        *_section("Data", _data(lineage)),
        *_section("Rewards", _rewards(record)),
        *_section("Evaluation", "\n\n".join(_evaluations(record, others))),
        *_section("Metrics of this step", _metrics(record)),
        *_section("Options", _fenced(_named(tracking.redact(record["options"]), lineage))),
        *_section("Recipe", f"```yaml\n{recipe.strip()}\n```" if recipe.strip() else ""),
        *_section("Made with", _versions(record, commit)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(lineage: Sequence[Record], record: Record) -> str:
    import yaml

    bases = [name for name in _models(lineage) if hub.NAME.fullmatch(name) or Path(name).is_dir()]
    licence = next(filter(None, (_licence(name) for name in bases)), None)
    words = {"library_name": "transformers", "tags": ["trimtab", OF_TRL, record["kind"]]}
    words |= {"license": licence} if licence else {}
    names = [name for name in bases if hub.NAME.fullmatch(name) and not Path(name).is_dir()]
    words |= {"base_model": names[0] if len(names) == 1 else names} if names else {}
    sets = [name for name in _datasets(lineage) if hub.NAME.fullmatch(name) and not Path(name).exists()]
    words |= {"datasets": sets} if sets else {}
    return f"---\n{yaml.safe_dump(words, sort_keys=False).strip()}\n---"


def _lineage(record: Record, others: Sequence[Record]) -> list[Record]:
    """The step and all that it came from, the oldest first."""
    by_fingerprint = {other["fingerprint"]: other for other in others}
    wanted: list[str] = [record["fingerprint"]]
    lineage: list[Record] = []
    while wanted:
        step = by_fingerprint.get(wanted.pop()) or record
        if step in lineage:
            lineage.remove(step)
        lineage.append(step)
        wanted += [key for key in step["inputs"].values() if key in by_fingerprint]
    return list(reversed(lineage))


def _steps(lineage: Sequence[Record]) -> str:
    rows = [
        (step["name"], step["kind"], f"`{step['fingerprint']}`", f"`{_hash(step)}`", ", ".join(step["inputs"]))
        for step in lineage
    ]
    return keys.table(("step", "kind", "fingerprint", "hash of its files", "made from"), rows)


def _hash(step: Record) -> str:
    """Eight digits over the hashes of all files of an artifact."""
    return fingerprint({"files": json.loads(json.dumps(step["files"], default=str))})


def _data(lineage: Sequence[Record]) -> str:
    rows = []
    for step in lineage:
        for block, counts in step["sources"].items():
            for name, of_source in mapping(counts).items():
                said = ", ".join(f"{number(count)} {word.replace('_', ' ')}" for word, count in of_source.items())
                rows.append((step["name"], block, name, said))
    return keys.table(("step", "key", "dataset", "rows"), rows)


def _rewards(record: Record) -> str:
    """Thresholds, weights and the multipliers that were reached."""
    rows = []
    for name, block in mapping(record["options"].get("rewards")).items():
        given = mapping(block)
        threshold = record["metrics"].get(f"thresholds/{name}", given.get("threshold"))
        logged = [row[f"train/rewards/{name}/mean"] for row in record["rows"] if f"train/rewards/{name}/mean" in row]
        numbers = (given.get("weight"), threshold, record["metrics"].get(f"lambda/{name}"), *logged[-1:])
        said = ["-" if value is None else number(value) for value in numbers]
        rows.append((name, str(given.get("kind", "")), *said, *([] if logged else ["-"])))
    return keys.table(("reward", "kind", "weight", "threshold", "multiplier", "last mean"), rows)


def _evaluations(record: Record, others: Sequence[Record]) -> Iterator[str]:
    for other in others:
        made_from = {step["fingerprint"] for step in _lineage(other, others)}
        if shows(other).section != "evaluation" or record["fingerprint"] not in made_from:
            continue
        evaluation = sections.evaluation(other)
        rows = []
        for name, policy in evaluation["policies"].items():
            for reward in evaluation["rewards"]:
                gap, win = policy["difference"].get(reward), mapping(policy["win_rate"].get(reward))
                interval = f"{win['rate']:.0%} [{win['low']:.0%}, {win['high']:.0%}]" if win else "-"
                rows.append((name, reward, with_error(policy["rewards"].get(reward)),
                             with_error(gap, signed=True) if gap else "-", interval))  # fmt: skip
        heads = ("policy", "reward", "mean", f"difference to {evaluation.get('baseline')}", "wins")
        said = f"`{other['name']}`, {number(evaluation.get('prompts'))} prompts; ± is a standard error over prompts."
        yield f"{said}\n\n{keys.table(heads, rows)}"


def _metrics(record: Record) -> str:
    results = sections.results(record["metrics"], shows(record).results)
    return keys.table(("metric", "value"), results)


def _versions(record: Record, commit: str) -> str:
    said = [f"{name} {version}" for name, version in record["versions"].items()]
    return ", ".join([*said, *([f"commit `{commit}`"] if commit else [])])


def _models(lineage: Sequence[Record]) -> list[str]:
    """Names of the models that the first steps began with."""
    names = [mapping(step["options"].get("model")).get("model_name_or_path") for step in lineage]
    outputs = {str(step["output"]) for step in lineage}
    return list(dict.fromkeys(str(name) for name in names if name and str(name) not in outputs))


def _datasets(lineage: Sequence[Record]) -> list[str]:
    sources = [name for step in lineage for counts in step["sources"].values() for name in mapping(counts)]
    return list(dict.fromkeys(sources))


def _licence(name: str) -> str | None:
    """The licence that the card of a model says, where it is on this machine."""
    import yaml

    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(name, "README.md")
        folder = Path(cached).parent if isinstance(cached, str) else folder
    try:
        _, front, _ = (folder / "README.md").read_text(encoding="utf-8").split("---", 2)
        return mapping(yaml.safe_load(front)).get("license")
    except (OSError, ValueError, yaml.YAMLError):
        return None


def _section(title: str, body: str) -> tuple[str, ...]:
    return (f"## {title}", body) if body else ()


def _fenced(value: Mapping[str, Any]) -> str:
    import yaml

    return f"```yaml\n{yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True, width=100).strip()}\n```"


def _named(value: Any, lineage: Sequence[Record]) -> Any:
    """The value without paths of this machine: `$name` for the steps that it came from, else the name of the file."""
    if isinstance(value, dict):
        return {key: _named(item, lineage) for key, item in value.items()}
    if isinstance(value, list):
        return [_named(item, lineage) for item in value]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    for step in lineage:
        output = step["output"].resolve()
        if Path(value).resolve().is_relative_to(output):
            inside = Path(value).resolve().relative_to(output)
            return f"${step['name']}" + (f"/{inside}" if inside.parts else "")
    return Path(value).name
