"""Whether the model hub can be asked: a plan on a machine that cannot reach it neither waits for it nor needs it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from trimtab.pipelines.planning.errors import RecipeError

NAME = re.compile(r"[\w.-]+/[\w.-]+")
SECONDS = 2.0


class Unreachable(RecipeError):
    """Something that only the hub has could not be looked at, since the hub cannot be reached."""


def is_name(text: str) -> bool:
    """Whether a string can only be a name on the hub: `org/model`, and nothing here."""
    return NAME.fullmatch(text) is not None and not Path(text).exists()


@cache
def is_reachable() -> bool:
    """Whether the hub takes a connection within two seconds; not asked where the environment says offline."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    host = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    answers: list[bool] = []

    def ask() -> None:
        try:
            socket.create_connection((host.hostname or "", host.port or 443), SECONDS).close()
            answers.append(True)
        except OSError:
            answers.append(False)

    thread = threading.Thread(target=ask, daemon=True)  # the look-up of a name knows no time limit
    thread.start()
    thread.join(SECONDS)
    return answers == [True] or bool(_proxy())


def prefer_cache(values: Iterable[str]) -> None:
    """Makes the libraries read their cache alone where a name among `values` needs a hub that cannot be reached.

    They would otherwise try every file of it many times. Call it before they are imported.
    """
    if any(is_name(value) for value in values) and not is_reachable():
        os.environ["HF_HUB_OFFLINE"] = "1"


def unreachable(name: str, path: Iterable[str]) -> RecipeError | None:
    """The error for something of the hub's that is not in the cache of a machine without it, else None."""
    if not is_name(name) or is_reachable():
        return None
    return Unreachable(
        f"{name} cannot be looked at: the hub cannot be reached, and it is not in the cache of this machine",
        tuple(path),
    )


def _proxy() -> str | None:
    return os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
