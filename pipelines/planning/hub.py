"""Whether the model hub can be asked: a plan on a machine that cannot reach it neither waits for it nor needs it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Literal
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


def require(name: str, path: Iterable[str], kind: Literal["models", "datasets"] = "models") -> None:
    """Raises Unreachable where nothing of a hub's repository is here, before a library is imported to say so."""
    if is_name(name) and not is_reachable() and not _is_cached(name, kind):
        raise _unreachable(name, path)


def unreachable(name: str, path: Iterable[str]) -> RecipeError | None:
    """The error for something of the hub's that is not in the cache of a machine without it, else None."""
    return None if not is_name(name) or is_reachable() else _unreachable(name, path)


def _unreachable(name: str, path: Iterable[str]) -> Unreachable:
    return Unreachable(
        f"{name} cannot be looked at: the hub cannot be reached, and it is not in the cache of this machine",
        tuple(path),
    )


def _is_cached(name: str, kind: str) -> bool:
    """Whether the cache has a folder of a repository; what is in it, only its library knows."""
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}"
    # prepared rows lie in a cache of their own, in a folder whose name ends in the library's own way
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    organisation = name.partition("/")[0]
    return repository.is_dir() or (kind == "datasets" and any(prepared.glob(f"{organisation}___*")))


def _proxy() -> str | None:
    return os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
