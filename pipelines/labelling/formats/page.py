"""What the page saves, and what lies in a folder of answers: {"rater": ..., "judgements": [...]}."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trimtab.pipelines.labelling.questions import Sheet


def recognises(content: Any) -> bool:
    """Whether it is an object with judgements."""
    return isinstance(content, dict) and isinstance(content.get("judgements"), list)


def read(content: Any, sheet: Sheet) -> Iterator[dict[str, Any]]:
    """The judgements as they stand there."""
    yield from content["judgements"]
