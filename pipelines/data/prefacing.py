"""Prompts with a text before them, as a system message where they are conversations."""

from __future__ import annotations

from typing import Any

from trimtab.pipelines.data.forms import said
from trimtab.rewards import text as said_in


def prefaced(prompt: Any, text: str) -> Any:
    """The prompt behind the text: a system message, joined with one that is there, or the beginning of a string.

    An empty text changes nothing.
    """
    if not text:
        return prompt
    if isinstance(prompt, str):
        return f"{text}\n\n{prompt}"
    first, *others = prompt
    if first["role"] == "system":
        return [*said("system", f"{text}\n\n{said_in([first])}"), *others]
    return [*said("system", text), *prompt]
