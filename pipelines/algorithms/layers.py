"""Which layer a weight is of, by its name."""

from __future__ import annotations

import re

NUMBER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def layer_number(name: str) -> int | None:
    """The first number in a parameter's name, as of `model.layers.3.mlp.up_proj.weight`; None for what is in none."""
    number = NUMBER.search(name)
    return int(number[1]) if number else None
