"""Secrets do not belong in a recipe: what looks like one is refused before anything of it is shown or written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trimtab.pipelines.planning.errors import RecipeError

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # the name of an environment variable
KEY = re.compile(r"(?:^|_)(?:api_?key|(?:auth|access|api|hf|hub)_token|token|secret|passwd|password|authorization)$")
# of a value, wherever it stands: the forms of well-known services, a header, and user names in URLs
VALUE = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[a-z]-[\w-]{10,}"
    r"|AKIA[0-9A-Z]{16}|wandb_v\d_\w{20,})|\bBearer\s+\S{8,}|\w://[^/@\s]+@"
)
OF_VOCABULARY = re.compile(r"(?:eos|bos|pad|unk|sep|cls|mask|image|audio|video)_token$")
CURE = "secrets do not belong in a recipe, where files, logs and flags show them"


def refuse(values: Mapping[str, Any], origins: Mapping[tuple[str, ...], str]) -> None:
    """Raises RecipeError, which does not show it, for the first value that looks like a secret."""
    for path, key, value in _entries(values, ()):
        message = _mistake(key, value)
        if message:
            error = RecipeError(message, path)
            if origins.get(path, "").startswith("override"):
                error.place = "an override"  # whose text would show it
            raise error


def is_secret(key: str, value: Any) -> bool:
    """Whether a value looks like a secret, or its key says that it is one."""
    return bool(_mistake(key, value))


def is_variable(value: str) -> bool:
    """Whether a text is the name of an environment variable, and not what somebody has pasted for it."""
    return bool(VARIABLE.fullmatch(value)) and not VALUE.search(value) and not any(map(_is_random, value.split("_")))


def _mistake(key: str, value: Any) -> str:
    """What is wrong with a value under a key; "" for nothing."""
    if VALUE.search(key):
        return f"a key here looks like a secret: {CURE}"
    name = key.lower().replace("-", "_")
    if name.endswith("_env") and value is not None and not (isinstance(value, str) and is_variable(value)):
        return "expected the name of an environment variable, such as REWARD_TOKEN, and not what is in it (not shown)"
    if not isinstance(value, str) or not value or value.startswith("$"):
        return ""
    if VALUE.search(value):
        return f"this looks like a secret: {CURE}: put it into an environment variable (not shown)"
    if KEY.search(name) and not OF_VOCABULARY.search(name):
        return f"{CURE}: a server's token comes from the variable that `token_env` names, others from `hf auth login`"
    return ""


def _is_random(word: str) -> bool:
    """Whether a part of a name is longer and more mixed than words are."""
    letters, digits = re.search(r"[A-Za-z]", word), re.search(r"\d", word)
    both_cases = re.search(r"[a-z]", word) and re.search(r"[A-Z]", word)
    return bool(len(word) >= 12 and letters and digits) or bool(len(word) >= 20 and (both_cases or word.isdigit()))


def _entries(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(path, key, value) of everything inside; what is in a list has the list's key."""
    parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in parts:
        place = path if VALUE.search(str(name)) else (*path, str(name))
        yield place, (path[-1] if isinstance(value, list) and path else str(name)), item
        yield from _entries(item, place)
