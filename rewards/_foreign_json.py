"""JSON of others: half of a pair of surrogates, which it can say and no file can hold, becomes U+FFFD."""

from __future__ import annotations

import json
import re
from typing import Any

SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def read(content: bytes, **options: Any) -> Any:
    """What JSON says, as `json.loads` reads it with these options. Raises what that raises."""
    said = json.loads(content, **options)
    return whole(said) if SURROGATE.search(content) else said


def whole(said: Any) -> Any:
    """The same strings, lists and dictionaries without halves of pairs."""
    if isinstance(said, str):
        return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(said, list):
        return [whole(one) for one in said]
    return {whole(key): whole(value) for key, value in said.items()} if isinstance(said, dict) else said
