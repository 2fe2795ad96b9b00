"""A card beside every finished model of a recipe: where the model is handed on, what it came from goes with it."""

from __future__ import annotations

import logging
from pathlib import Path

from trimtab.pipelines.planning.files import write_atomically
from trimtab.pipelines.planning.recipe import Recipe
from trimtab.pipelines.reporting import card, records
from trimtab.pipelines.running import pushing

NAME = "README.md"  # in the step's folder, and in that of a model on the hub
logger = logging.getLogger(__name__)


def write(recipe: Recipe) -> None:
    """Writes the cards, with the evaluations that there are by now; a disk that takes nothing stops nothing."""
    done = [step for step in recipe.steps if step.done]
    models = [step for step in done if any(step.output.glob("*.safetensors"))]
    if not models:
        return
    read = {step.name: records.read(step.output, step) for step in done}
    file = Path(recipe.path)
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    commit = pushing.commit()
    try:
        for step in models:
            written = card.render(read[step.name], list(read.values()), recipe=text, commit=commit)
            place = step.dir / NAME
            if not place.is_file() or place.read_text(encoding="utf-8") != written:
                write_atomically(place, written)
    except OSError as error:
        logger.warning("%s has no cards: %s", recipe.run, error)
