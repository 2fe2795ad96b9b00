"""The code that a recipe would run: where it is, which key names it, and whether the user has consented to it.

A dotted kind of a stage, a reward, a layout or an optimizer, and a function that a key of a reward or a stage names,
with the modules beside it that it imports; of a model with `trust_remote_code`, or an attention kernel from the Hub,
the repository. What comes with Trimtab is not listed; what the user has installed is, and needs no consent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.pipelines.planning import kinds, optimizer_blocks, outlines, trust
from trimtab.pipelines.planning.errors import RecipeError, RecipeErrors
from trimtab.pipelines.planning.yaml_words import settled
from trimtab.rewards import _source

MODEL, REVISION = "model_name_or_path", "model_revision"


@dataclass(frozen=True)
class Code:
    """A file, or a repository of the Hub: `name` is what is shown of it, and `mark` what consent is to."""

    name: str
    path: tuple[str, ...]  # the key that names it
    mark: str
    file: Path | None = None
    is_installed: bool = False
    imported: bool = False  # by a file that the key names

    @property
    def is_given(self) -> bool:
        """Whether it may be run."""
        return self.is_installed or trust.is_given(self.mark, self.file)


def code_of(step: Any) -> list[Code]:
    """The code of a step of a plan."""
    return code_in({**step.options, "kind": step.kind}, step.path, kinds.STAGES)


def code_in(values: Mapping[str, Any], path: Sequence[str], package: str = kinds.REWARDS) -> list[Code]:
    """The code that a block names, everything inside it included; `package` is that of the block's own `kind`."""
    listed: dict[str, Code] = {}
    for code in _code(values, tuple(path), package, values):
        listed.setdefault(f"{code.name} {code.mark}", code)
    return list(listed.values())


def withheld(listed: Iterable[Code]) -> list[Code]:
    """What of the code there is no consent to."""
    return [code for code in listed if not code.is_given]


def require(listed: Iterable[Code]) -> None:
    """Raises Withheld, a line for each file, where there is code without consent."""
    missing = [trust.Withheld(f"{code.name} would run: {_cure(code)}", code.path) for code in withheld(listed)]
    if missing:
        raise missing[0] if len(missing) == 1 else RecipeErrors(missing)


def look(cls: Any, options: Mapping[str, Any], path: Sequence[str]) -> None:
    """Raises RecipeError for a function that a reward's key names and that is seen to be no function for it.

    Of code that may be imported, and of what is not there, the class itself says more.
    """
    for key, word in _named(cls, options):
        place = _source.locate(word, getattr(cls, "code_name", None))
        if place is None or place.name is None:
            continue
        if not place.files or not trust.are_given(place.files.values()):
            outlines.check(place, (*path, *key), reward=False, known_by=getattr(cls, "code_takes", ("completions",)))


def _cure(code: Code) -> str:
    what = "its revision moves: pin `model_revision`; then" if code.mark.endswith("@main") else "read it, then"
    return f"{what} consent with --trust on the same command, or for good (docs/trust.md)"


def _code(value: Any, path: tuple[str, ...], package: str, step: Mapping[str, Any]) -> Iterator[Code]:
    """The code that a value of a recipe names; `step` is the whole that it is part of."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _code(item, (*path, str(index)), package, step)
    if not isinstance(value, Mapping):
        return
    yield from _of_kind(value, path, package)
    yield from _of_hub(value, path, step)
    for key, item in value.items():
        place = (*path, str(key))
        if key == "layout" and isinstance(item, str):
            yield from _of_kind({"kind": item}, place, kinds.LAYOUTS)
        if key == optimizer_blocks.KEY and (word := optimizer_blocks.word_of(item)):
            yield from _files(_source.locate(word), word, place)
        yield from _code(item, place, kinds.LAYOUTS if key == "layout" else kinds.REWARDS, step)


def _of_kind(block: Mapping[str, Any], path: tuple[str, ...], package: str) -> Iterator[Code]:
    """The code of a block's `kind`, and of the functions that its keys name."""
    word = block.get("kind")
    if not isinstance(word, str):
        return
    if "." in word:
        yield from _files(_source.locate(word), word, (*path, "kind"))
    if package in (kinds.REWARDS, kinds.STAGES):
        try:
            cls = kinds.find(package, word, path)
        except RecipeError:  # the check of the block says so, or it is code without consent itself
            return
        for key, named in _named(cls, block):
            yield from _files(_source.locate(named, getattr(cls, "code_name", None)), named, (*path, *key))


def _named(cls: Any, block: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """(place, function) of the keys of a reward's or a stage's block that name one, or several in a list."""
    for key in getattr(cls, "names_code", ()):
        value = block.get(key)
        if isinstance(value, str):
            yield (key,), value
        elif isinstance(value, list):
            yield from (((key, str(index)), word) for index, word in enumerate(value) if isinstance(word, str))


def _files(place: _source.Place | None, word: str, path: tuple[str, ...]) -> Iterator[Code]:
    if place is None:
        return
    if not place.files and not _source.is_ours(place.file):
        yield Code(word, path, trust.mark(place.file), place.file, is_installed=True)
    for file in sorted({file for file in place.files.values() if file.is_file()}, key=lambda file: file != place.file):
        yield Code(_shown(file), path, trust.mark(file), file, imported=file != place.file)


def _of_hub(block: Mapping[str, Any], path: tuple[str, ...], step: Mapping[str, Any]) -> Iterator[Code]:
    """Code that transformers would take from a model's repository, or for its attention from another."""
    for key, value in block.items():
        written = settled(value)
        is_flag = key == "trust_remote_code" and written not in (False, None, "false", "False")
        if is_flag or (isinstance(value, str) and "trust_remote_code" in value):
            for model, revision in _models(step):
                yield from _of_model(model, revision, (*path, str(key)))
        if str(key).endswith("attn_implementation") and isinstance(value, str) and "/" in value:
            repository, _, revision = value.partition("@")
            yield _repository(repository, revision.partition(":")[0], (*path, key))


def _models(value: Any) -> Iterator[tuple[str, str]]:
    """(name, revision) of every model inside."""
    if isinstance(value, Mapping):
        if isinstance(value.get(MODEL), str):
            yield value[MODEL], str(value.get(REVISION) or "")
        for item in value.values():
            yield from _models(item)
    elif isinstance(value, list):
        for item in value:
            yield from _models(item)


def _of_model(model: str, revision: str, path: tuple[str, ...]) -> Iterator[Code]:
    """A model's code: the Python files of its folder and what they point to on the Hub, or its repository."""
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if not folder.is_absolute() and model.count("/") <= 1:  # else an artifact that has still to be made
            yield _repository(model, revision, path)
        return
    for file in sorted(folder.rglob("*.py")):
        yield Code(_shown(file), path, trust.mark(file), file)
    for file in sorted(folder.glob("*config.json")):
        try:
            pointers = json.loads(file.read_text()).get("auto_map", {})
        except (OSError, ValueError, AttributeError):
            continue
        for word in sorted(_words(pointers)):
            repository, dashes, _ = word.partition("--")
            if dashes:
                yield _repository(repository, "", path)


def _words(value: Any) -> set[str]:
    if isinstance(value, str):
        return {value}
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return {word for part in parts for word in _words(part)}


def _repository(name: str, revision: str, path: tuple[str, ...]) -> Code:
    mark = f"{name}@{revision or 'main'}"
    return Code(f"{mark} (code from the Hub)", path, mark)


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
