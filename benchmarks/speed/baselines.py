"""What was measured, as one file for each machine, mode, model and vocabulary; a page of them; and a comparison."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

from clock import Measured, Side

FOLDER = Path(__file__).resolve().parents[1] / "baselines"
SLOWER = 1.15  # times, from which a comparison names a side
PAGE = """# Speed beside TRL

What our trainers, sampler and rewards cost beside TRL's own code on the same work: in turns, in one process, on the
same model and rows, with equal losses and gradients. Made by `python benchmarks/speed page` from the files in
[benchmarks/baselines/](../../benchmarks/baselines/). **Nothing here was run on a GPU.** Our stages have their
defaults; on a CPU, unlike TRL, these keep activations instead of recomputing them.

Rows are of real lengths (preference pairs of hh-rlhf, at most 1024 tokens); the model is a random Llama with a
vocabulary that was learned on them. *Seconds* are of processor time, medians of the runs. *Before* is what is done
once in front of the training, for its rows, in seconds of the clock: a reference's log-probabilities, which `prefer`
is given by `sample`. *Ratio* is TRL's as it comes over a row's, of one epoch and with what is done before; above 1
is faster, and the one of clock time stands behind it where the two are more than a tenth apart. *Computed* counts
the thousands of tokens that went into a model, of which each prompt once and each answer are *needed*. *MFU* is the
arithmetic of the needed tokens' forward and backward pass, over what the same threads do in one large matrix
product. *Equal* is the largest difference to TRL's losses and norms of gradients, relative where they are above 1;
of a sampler, to the log-probabilities of a fresh pass; of scores, to TRL's. Completions of GRPO are drawn, by each
side its own; that both learn the same of the same ones is `test_a_fixed_mix_is_trained_as_by_trl`.

Where the sampler's time goes, at 64 rows (`modes=sample profile=yes`, 2026-11-28, shares of processor time): 35 % are
products with the model's weights, and 38 % products and exponents of attention over what was said.
"""


def record(mode: str, sides: list[Side], runs: dict[str, list[Measured]], facts: dict[str, Any]) -> dict[str, Any]:
    """The contents of a file."""
    reference = next((side.name for side in sides if not side.is_ours), None)
    rows = {}
    for side in sides:
        measured = runs[side.name]
        rows[side.name] = {
            "ours": side.is_ours,
            "seconds": [round(run.seconds / run.work, 4) for run in measured],
            "cpu": [round(run.cpu / run.work, 4) for run in measured],
            "before": round(median(run.before for run in measured), 3),
            "computed": round(measured[0].computed, 2),
            "gap": None if reference is None else gap(measured[0], runs[reference][0]),
        }
    return {"mode": mode, **facts, "sides": rows}


def gap(measured: Measured, reference: Measured) -> float | None:
    """The largest difference of values, relative to those above 1."""
    if measured.gap is not None or not measured.values:
        return measured.gap
    pairs = zip(measured.values, reference.values, strict=True)
    return max(abs(ours - theirs) / max(1.0, abs(theirs)) for ours, theirs in pairs)


def ratio(record: dict[str, Any], name: str, clock: str = "cpu") -> float:
    """How many times faster a side is than the first one, with what is done before."""
    first, side = next(iter(record["sides"].values())), record["sides"][name]
    return (median(first[clock]) + first["before"]) / (median(side[clock]) + side["before"])


def path_of(record: dict[str, Any]) -> Path:
    """Where a file lies."""
    return FOLDER / record["machine"] / f"{record['mode']}-{record['model']}-{record['vocabulary']}.json"


def slower(fresh: dict[str, Any]) -> list[str]:
    """Our sides that are more than SLOWER times slower, beside TRL's in the same run, than in the baseline, if any."""
    path = path_of(fresh)
    if not path.exists():
        return [f"{fresh['mode']}: nothing to compare with, as there is no {path}: save=yes makes it"]
    kept = json.loads(path.read_text())
    sentences = []
    for name, side in fresh["sides"].items():
        if not side["ours"] or name not in kept["sides"]:
            continue
        before, now = ratio(kept, name), ratio(fresh, name)
        if now * SLOWER < before:
            sentences.append(f"{fresh['mode']}, {name}: {now:.2f} times TRL, and {before:.2f} in {path.name}")
    return sentences


def table(record: dict[str, Any]) -> str:
    """A record as Markdown: ratios to TRL, or, where ours are by themselves, how many times a row costs the first."""
    of_trl = any(not side["ours"] for side in record["sides"].values())
    heads = ["", "seconds", "ratio" if of_trl else "times", "before", "computed, k", "MFU", "equal"]
    lines = [f"| {' | '.join(heads)} |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, side in record["sides"].items():
        cpu, wall = ratio(record, name), ratio(record, name, "seconds")
        ratios = f"{cpu:.2f}" + ("" if abs(math.log(cpu / wall)) < 0.1 else f" ({wall:.2f})")
        cells = [
            f"**{name}**" if side["ours"] else name,
            f"{median(side['cpu']):.2f}",
            ratios if of_trl else f"{1 / cpu:.2f}",
            f"{side['before']:.1f}" if side["before"] else "",
            f"{side['computed']:.1f}",
            _mfu(record, side),
            "" if side["gap"] is None else f"{side['gap']:.0e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mfu(record: dict[str, Any], side: dict[str, Any]) -> str:
    if not record.get("operations"):
        return ""
    needed = record["operations"] * record["multiplied"] * 1000 * record["needed"]
    return f"{needed / median(side['seconds']) / record['peak']:.0%}"


def page(order: list[str]) -> str:
    """docs/results/speed.md, with the modes in this order."""
    parts = [PAGE]
    for folder in sorted(path for path in FOLDER.iterdir() if path.is_dir()):
        parts.append(f"## {folder.name}\n")
        records = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
        ordered = sorted(records, key=lambda kept: (order.index(kept["mode"]), kept["parameters"]))
        parts.append(f"{summary(ordered)}\n")
        parts += [f"{_heading(kept)}\n\n{table(kept)}\n" for kept in ordered]
    return "\n".join(parts)


def summary(records: list[dict[str, Any]]) -> str:
    """How many times faster ours are than TRL as it comes and at its best, by model and vocabulary, as Markdown."""
    shapes = {f"{kept['model']}, {kept['vocabulary']}": kept["parameters"] for kept in records}
    rows: dict[str, dict[str, str]] = {}
    for kept in records:
        theirs = [ratio(kept, name) for name, side in kept["sides"].items() if not side["ours"]]
        for name in [name for name, side in kept["sides"].items() if side["ours"] and theirs]:
            fast = ratio(kept, name)
            cells = rows.setdefault(f"{kept['title']}: **{name}**", {})
            cells[f"{kept['model']}, {kept['vocabulary']}"] = f"{fast:.1f} / {fast / max(theirs):.1f}"
    lines = [["times TRL as it comes / at its best", *shapes], ["---"] * (len(shapes) + 1)]
    lines += [[work, *(cells.get(shape, "") for shape in shapes)] for work, cells in rows.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _heading(kept: dict[str, Any]) -> str:
    count = len(next(iter(kept["sides"].values()))["cpu"])
    runs = f"{count} run{'s' if count > 1 else ''}" + (f" {kept['note']}" if kept.get("note") else "")
    needed = f"; {kept['needed']:.1f} k tokens are needed" if kept["needed"] else ""
    return (
        f"### {kept['title']}: {kept['parameters'] / 1e6:.1f} M parameters, {kept['vocabulary']} words\n\n"
        f"{kept['date']}, `python benchmarks/speed {kept['words']}`, {runs}{needed}."
    )
