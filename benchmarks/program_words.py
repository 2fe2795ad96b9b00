"""The `key=value` words of a program that runs one recipe over several seeds."""

from __future__ import annotations

from collections.abc import Sequence


def given(words: Sequence[str], seeds: int) -> tuple[int, list[str]]:
    """How many seeds (`seeds=`, or so many), and what is left of the words for the recipe, which is not tracked."""
    values = dict(word.split("=", 1) for word in words)
    count = int(values.pop("seeds", seeds))
    values.pop("save", None)  # which stored_numbers hears
    return count, ["wandb=false", *(f"{key}={value}" for key, value in values.items())]
