"""How a server is asked over HTTP: its limits and its token, keys that are the same wherever one is named."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trimtab.rewards._http import Post

LIMITS = ("connect_timeout", "timeout", "tries", "deadline", "max_response_mb")


def require_positive(block: Any, *others: str) -> None:
    """Raises ValueError where a limit of the block, or another key of it, is no positive number."""
    for name in (*others, *LIMITS):
        value = getattr(block, name)
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a positive number, got {value}")


def post(block: Any, **limits: float) -> Post:
    """What sends requests within the block's limits, or those that are given here, with the token of `token_env`."""
    from trimtab.rewards._http import Post

    return Post(**{name: getattr(block, name) for name in LIMITS} | limits, token=bearer(block.token_env))


def bearer(variable: str) -> str | None:
    """The token in an environment variable; None for none. Raises ValueError for what is none, without telling it."""
    token = os.environ.get(variable, "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:  # httpx would say so with the token in it
        raise ValueError(f"the token in ${variable} has characters that a header cannot hold")
    return token or None
