"""The page of a run as one HTML file, from the records of its steps.

Text that a model or a dataset wrote is always escaped. What of a step is shown says the class of its kind (`shows`);
one of which nothing is known is drawn without further ado.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.reporting import numerals, plane, plots, sections, verdict
from trimtab.pipelines.reporting.records import Record, mapping, shows
from trimtab.pipelines.reporting.shows import OF_ANY_TRAINING


@dataclass(frozen=True)
class Change:
    """What of a step is other than in the run before; `options` and `results` are (key, before, now)."""

    step: str
    options: Sequence[tuple[str, str, str]]
    results: Sequence[tuple[str, str, str]]


def render(
    records: Sequence[Record], samples: int, recipe: str, refresh: int | None = None, changes: Sequence[Change] = ()
) -> str:
    """The page of the steps that `read` has read, with the completions of `samples` prompts.

    With `refresh`, a browser reads it again after so many seconds. `changes` are what is other than in the run before.
    """
    from markupsafe import Markup

    evaluations = [sections.evaluation(record) for record in records if shows(record).section == "evaluation"]
    reward_models = [sections.reward_model(record) for record in records if shows(record).section == "reward model"]
    reports = [sections.reward_report(record) for record in records if shows(record).section == "reward report"]
    logged = [row for record in records for row in sections.logged_by_rewards(record)]
    labels = [sections.labels(record) for record in records if shows(record).section == "labels"]
    left_out = [sections.left_out(record) for record in records if shows(record).section == "left out"]
    completions = [] if evaluations else sections.completions(records, samples)
    for evaluation in evaluations:
        evaluation["verdict"] = verdict.words(evaluation)
        if evaluation["rewards"]:
            evaluation["samples"] = verdict.most_different(evaluation["samples"], evaluation["rewards"][0])
    audited = [block for record in records for block in sections.audited(record)]
    environment = templates()
    environment.filters |= {
        "number": numerals.number,
        "error": numerals.with_error,
        "errors": numerals.in_errors,
        "duration": numerals.duration,
        "size": numerals.size,
        "off": numerals.off,
        "percent": numerals.percent,
        "fold": sections.fold,
        "marked": verdict.marked,
        "yaml": _yaml,
    }
    return environment.get_template("report.html.j2").render(
        recipe=next((record["recipe"] for record in records if record["recipe"]), recipe),
        steps=_steps(records, evaluations),
        finished=max((str(record["finished"]) for record in records if record["finished"]), default=None),
        seconds=sum(record["seconds"] for record in records if numerals.finite(record["seconds"])),
        seeds=list(dict.fromkeys(record["seed"] for record in records if record["seed"])),
        versions=_common_versions(records),
        evaluations=evaluations,
        reward_models=reward_models,
        reward_reports=reports,
        logged=logged,
        logged_titles=list(dict.fromkeys(title for row in logged for title in row["numbers"])),
        labels=[about for about in labels if about["rows"]],
        audited=audited,
        left_out=[about for about in left_out if about["reasons"]],
        completions=completions,
        samples=samples,
        refresh=refresh,
        changes=changes,
        thresholds=[(record["name"], row) for record in records for row in verdict.thresholds(record)],
        most_bytes=max((record["peak_bytes"] or 0 for record in records), default=0),
        most_seconds=max((record["seconds"] or 0 for record in records if record["peak_bytes"]), default=0),
        plane=lambda policies, reward: Markup(plane.draw(policies, reward)),
        reliability=lambda bins: Markup(plots.reliability(bins or [])),
        interval=lambda win: Markup(plots.interval(*map(mapping(win).get, ("low", "rate", "high")))),
    )


def templates() -> Any:
    """The jinja environment of the pages, which escapes all that is no drawing."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _steps(records: Sequence[Record], evaluations: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records, each with its `lane` of the chain, its `curves` and the `results` in its row."""
    from markupsafe import Markup

    gains = {evaluation["record"]["output"]: evaluation["gains"] for evaluation in evaluations}
    positions = {(record["name"], record["fingerprint"]): position for position, record in enumerate(records)}
    sources = [[positions[key] for key in record["inputs"].items() if key in positions] for record in records]
    steps = []
    for record, lane, rows in zip(records, plots.chain(sources), _rows_to_draw(records), strict=True):
        about = shows(record)
        results = gains.get(record["output"])
        if results is None:
            results = sections.results(record["metrics"], about.results)
        over = "round" if about.by_round else "step"
        panels = {**about.panels, **OF_ANY_TRAINING} if about.panels else {}
        curves = [(title, Markup(drawing)) for title, drawing in plots.curves(rows, panels, over)]
        steps.append({**record, "lane": Markup(lane), "curves": curves, "results": results})
    return steps


def _rows_to_draw(records: Sequence[Record]) -> list[list[dict[str, Any]]]:
    """The metrics to draw of each step; the last step of a loop has those of all of its kind, round by round."""
    rounds: dict[tuple[str, str], list[int]] = {}
    for position, record in enumerate(records):
        if shows(record).by_round and "stopped" not in record["metrics"]:
            rounds.setdefault((str(record["stage"]), record["kind"]), []).append(position)
    rows = [record["rows"] for record in records]
    for positions in rounds.values():
        for position in positions:
            rows[position] = []
        rows[positions[-1]] = [
            {"step": number, **records[position]["metrics"]} for number, position in enumerate(positions, start=1)
        ]
    return rows


def _common_versions(records: Sequence[Record]) -> dict[str, Any]:
    """The versions with which all of the steps were made."""
    versions = [record["versions"] for record in records if record["versions"]]
    first = versions[0] if versions else {}
    return {name: version for name, version in first.items() if all(other.get(name) == version for other in versions)}


def _yaml(value: Any) -> str:
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100).strip()
