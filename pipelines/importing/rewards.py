"""Rewards of other recipes: functions by name or by file, reward models and servers, as blocks with a `kind`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from trimtab.pipelines.importing import names
from trimtab.pipelines.importing.draft import Draft

TRL = ("accuracy_reward", "reasoning_accuracy_reward", "think_format_reward")  # words of `trl grpo`
THINKS = r"^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$"
WORDS: dict[str, dict[str, Any]] = {  # words of open-r1's registry with what says the same, or comes near
    "accuracy": {"kind": "math", "column": "solution"},
    "format": {"kind": "pattern", "regex": THINKS},
    "repetition_penalty": {"kind": "repetition"},
    "code": {"kind": "code"},
    "binary_code": {"kind": "code", "score": "all"},
    "code_format": {"kind": "pattern", "regex": r"^<think>\n.*?\n</think>\n<answer>\n.*?```.*?```.*?\n</answer>$"},
    "reasoning_steps": {"kind": "pattern", "regex": r"(Step \d+:|^\d+\.|\n-|\n\*|First,|Second,|Next,|Finally,)"},
}
NEAR = {
    "repetition_penalty": "n-grams of 3 words and at most -1, as its defaults",
    "code": "tests in the column `test_list`, run in a sandbox: name the column in `tests`",
    "binary_code": "tests in the column `test_list`, run in a sandbox: name the column in `tests`",
    "reasoning_steps": "1 for any marker of a step, where it counted up to three",
}
MISSING = "no reward of this name comes with Trimtab: write it as {kind: trl_function, path: FILE.py:NAME}"
PLACE = re.compile(r"^(?P<file>[^:]+\.py)(?::(?P<name>\w+))?$")


def named(draft: Draft, word: str) -> tuple[str, dict[str, Any]]:
    """A reward by the word or the dotted path that a recipe has for it: its name here, and its block."""
    label = re.sub(r"\W+", "_", word.rpartition(".")[2]).strip("_") or "reward"
    if word in TRL:
        return label, {"kind": f"trl.rewards.{word}"}
    if word in WORDS:
        if word in NEAR:
            draft.notes.append(f"reward {word!r}: {NEAR[word]}")
        return label, dict(WORDS[word])
    module = word.rpartition(".")[0]
    if module and module.startswith("trl."):
        return label, {"kind": word}
    file = Path(*module.split(".")).with_suffix(".py") if module else None
    for path in (file, draft.source.folder / file) if file else ():
        if path.is_file():
            return label, {"kind": "trl_function", "path": f"{path}:{word.rpartition('.')[2]}"}
    return label, stand_in(draft, label, f"reward {word!r}: {MISSING}")


def function(draft: Draft, place: str, kind: str, **options: Any) -> dict[str, Any]:
    """A function in a file, for a reward of `kind`; a stand-in with a note where the file is not here."""
    match = PLACE.match(place)
    file = Path(match["file"]) if match else Path(place)
    path = next((path for path in (file, draft.source.folder / file) if path.is_file()), None)
    if path is None:
        written = ", ".join([f"kind: {kind}", f"path: {file.name}", *(f"{key}: {options[key]}" for key in options)])
        return stand_in(draft, file.stem, f"{place} is not here: copy it and write {{{written}}} in the place of {{}}")
    name = f":{match['name']}" if match and match["name"] else ""
    return {"kind": kind, "path": f"{path}{name}", **options}


def model(draft: Draft, name: Any) -> dict[str, Any]:
    """A reward model, with what is to be done where it is not here."""
    path, note = names.settle(name, draft.source.folder)
    if note:
        draft.notes.append(note)
    return {"kind": "reward_model", "path": path}


def stand_in(draft: Draft, label: str, note: str) -> dict[str, Any]:
    """A block that a plan takes and a run refuses, in the place of a reward that is not here."""
    word = re.sub(r"[^\w.-]+", "-", label)
    path = f"{names.YOURS}/{word}"
    draft.notes.append(note.replace("{}", path) if "{}" in note else f"{note}, in the place of {path}")
    return {"kind": "reward_model", "path": path}
