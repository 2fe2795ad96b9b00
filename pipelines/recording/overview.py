"""The wandb run of a whole recipe, above those of its steps: curves over rounds, tables, completions, the report.

It is written when a command has ended, under the same id each time, so a run that was killed and goes on has one.
Nothing that wandb does or fails to do reaches the run.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.recording import tracking

logger = logging.getLogger(__name__)
KIND = "recipe"  # the job type of such a run
Row = Mapping[str, Any]


@dataclass
class Overview:
    """What the run of a recipe shows; each table is a list of rows with the same keys."""

    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    rounds: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)  # stage -> its rounds' metrics
    summary: dict[str, float] = field(default_factory=dict)
    report: Path | None = None


def identity(recipe: Recipe) -> str:
    """The id of a recipe's run: that of its folder, so that what goes on there goes on in it."""
    digits = hashlib.sha256(str(recipe.run.absolute()).encode()).hexdigest()[:8]
    return tracking.word(f"{recipe.name}-{KIND}-{digits}")


def write(recipe: Recipe, overview: Overview) -> None:
    """Writes the run of a recipe."""
    try:
        _write(recipe, overview)
    except Exception as error:  # whatever wandb does, the run has ended well
        logger.warning("wandb has no overview of %s: %s: %s", recipe.name, type(error).__name__, error)


def _write(recipe: Recipe, overview: Overview) -> None:
    import wandb

    with wandb.init(
        **tracking.common(recipe),
        job_type=KIND,
        name=recipe.name,
        id=identity(recipe),
        dir=str(recipe.run),
        config={"recipe": recipe.name, "steps": {step.name: step.fingerprint for step in recipe.steps}},
    ) as run:
        run.define_metric("rounds/*", step_metric="round")
        for stage, rounds in overview.rounds.items():
            for number, metrics in enumerate(rounds, start=1):
                run.log({"round": number, **{f"rounds/{stage}/{key}": value for key, value in metrics.items()}})
        for name, rows in overview.tables.items():
            if rows:
                columns = list(rows[0])
                run.log({name: wandb.Table(columns=columns, data=[[row.get(key) for key in columns] for row in rows])})
        run.summary.update(overview.summary)
        if overview.report is not None:
            artifact = wandb.Artifact(tracking.word(f"{recipe.name}-report"), type="report")
            artifact.add_file(str(overview.report), name="report.html")
            run.log({"report": wandb.Html(overview.report.read_text(encoding="utf-8"))})
            run.log_artifact(artifact)


def is_on(recipe: Recipe) -> bool:
    """Whether wandb is to have a run of the recipe."""
    return recipe.wandb is not None and os.environ.get("WANDB_MODE") != "disabled"
