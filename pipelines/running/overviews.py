"""What wandb is shown of a whole recipe, from the records of its steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import overview
from trimtab.pipelines.reporting import records, sections
from trimtab.pipelines.reporting.numerals import finite
from trimtab.pipelines.reporting.records import Record


def record(recipe: Recipe) -> None:
    """Writes the run of a recipe: what its steps have left so far."""
    done = [step for step in recipe.steps if step.done]
    if not overview.is_on(recipe) or not done:
        return
    read = [records.read(step.output, step) for step in done]
    evaluations = [sections.evaluation(of) for of in read if records.shows(of).section == "evaluation"]
    reports = [step.output / "report.html" for step in done if (step.output / "report.html").is_file()]
    overview.write(
        recipe,
        overview.Overview(
            tables={
                "steps": [_step(of) for of in read],
                "evaluation": [row for evaluation in evaluations for row in _policies(evaluation)],
                "completions": [row for evaluation in evaluations for row in _completions(evaluation)],
            },
            rounds=_rounds(read),
            summary={"steps_done": len(done), "seconds": sum(of["seconds"] or 0 for of in read)},
            report=reports[-1] if reports else None,
        ),
    )


def _step(of: Record) -> dict[str, Any]:
    results = sections.results(of["metrics"], records.shows(of).results)
    said = ", ".join(f"{name} {value}" for name, value in results)
    return {"step": of["name"], "kind": of["kind"], "fingerprint": of["fingerprint"], "seconds": of["seconds"],
            "device": str(of["device"] or ""), "result": said}  # fmt: skip


def _rounds(read: Sequence[Record]) -> dict[str, list[dict[str, float]]]:
    """The metrics of steps of one stage and kind, of which there are several, round by round."""
    by_stage: dict[tuple[str, str], list[Record]] = {}
    for of in read:
        by_stage.setdefault((str(of["stage"]), of["kind"]), []).append(of)
    rounds = {}
    for (stage, kind), several in by_stage.items():
        if len(several) > 1:
            rounds[f"{stage}/{kind}"] = [_numbers(of["metrics"]) for of in several]
    return rounds


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if finite(value)}


def _policies(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each policy and reward."""
    rows = []
    for name, policy in evaluation["policies"].items():
        for reward in evaluation["rewards"]:
            mean, gap, win = (policy[part].get(reward) or {} for part in ("rewards", "difference", "win_rate"))
            rows.append({"policy": name, "reward": reward, "mean": mean.get("mean"), "stderr": mean.get("stderr"),
                         "difference": gap.get("mean"), "difference_stderr": gap.get("stderr"),
                         "win_rate": win.get("rate"), "kl": (policy.get("kl") or {}).get("mean")})  # fmt: skip
    return rows


def _completions(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each prompt, with the completions of all policies side by side."""
    return [
        {"prompt": sections.text(sample["prompt"])}
        | {name: sections.text(answer["completion"]) for name, answer in sample["policies"].items()}
        for sample in evaluation["samples"]
    ]
