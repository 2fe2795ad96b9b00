"""What is imported: the keys of a YAML file or of a command line, and which program they are for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trimtab.pipelines.importing import shell
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.yaml_limits import TooMuch, read
from trimtab.pipelines.planning.yaml_words import Loader

CONFIGS = ("config", "config_file")
PROGRAMS = re.compile(
    r"verl\.|openrlhf|train_(?:sft|rm|dpo|kto|ppo|rlhf|opd)\w*\.py|^(?:trl|axolotl|llamafactory-cli)$|llamafactory"
    r"|axolotl\.cli|run_\w+\.py|(?:sft|dpo|grpo|kto|reward|orpo|ppo|sppo|rloo|gkd)(?:_\w+)?\.py|trl\.scripts"
)


@dataclass(frozen=True)
class Source:
    """One training of another program: where it stands, its program's words, and its keys with their values."""

    name: str
    values: dict[str, Any]
    program: tuple[str, ...] = ()
    folder: Path = field(default=Path())  # that paths in it may be relative to

    @property
    def command(self) -> str:
        """The words of the program as one line, to be searched."""
        return " ".join(self.program)


def gather(words: Sequence[str], line: Sequence[str] = ()) -> list[Source]:
    """The sources that the words of a command line name: files, or command lines in quotation marks, or `line`.

    Raises RecipeError for what is neither.
    """
    gathered: list[Source] = []
    for word in words:
        if Path(word).expanduser().is_file():
            gathered += _of_file(Path(word).expanduser())
        elif len(word.split()) > 1:
            gathered += _of_line(word)
        else:
            raise RecipeError(f"no such file: {word} (a command line stands behind --, or in quotation marks)")
    if line:
        gathered += _of_commands("command line", [list(line)], Path())
    if not gathered:
        raise RecipeError("nothing to import: name YAML files or shell scripts, or give a command line behind --")
    return gathered


def _of_line(text: str) -> list[Source]:
    try:
        return _of_commands("command line", shell.commands(text), Path())
    except ValueError as error:
        raise RecipeError(f"the command line is not readable: {error}") from None


def _of_file(path: Path) -> list[Source]:
    if path.suffix in (".yaml", ".yml", ".json"):
        return [Source(path.name, _yaml(path), folder=path.parent)]
    try:
        text = path.read_text(encoding="utf-8")
        trainings = _of_commands(path.name, shell.commands(text), path.parent)
    except (ValueError, OSError) as error:
        raise RecipeError(f"{path}: not readable as a shell script: {error}") from None
    if not trainings:
        raise RecipeError(f"{path}: no command of trl, alignment-handbook, open-r1, SPPO, LLaMA-Factory, axolotl, "
                          "OpenRLHF or verl in it")  # fmt: skip
    return trainings


def _of_commands(name: str, commands: Iterable[list[str]], folder: Path) -> list[Source]:
    sources = []
    for words in commands:
        start = next((index for index, word in enumerate(words) if is_program(word)), None)
        if start is None:
            continue
        plain, given = shell.options(words[start:])
        launcher = [word for word in words[:start] if not word.startswith("-")]
        values: dict[str, Any] = {}
        for config in _configs(plain, given, folder):
            values |= _yaml(config)
        values |= {key.replace("-", "_"): _value(value) for key, value in given.items() if key not in CONFIGS}
        named = [word for word in plain if not word.endswith((".yaml", ".yml", ".json"))]
        sources.append(Source(name, values, (*launcher, *named), folder))
    return sources


def is_program(word: str) -> bool:
    """Whether a word of a command line names one of the programs."""
    return not word.startswith("-") and PROGRAMS.search(word) is not None


def _configs(plain: list[str], given: Mapping[str, object], folder: Path) -> Iterator[Path]:
    """The YAML files that a command names. Raises RecipeError for one that is not there."""
    names = [word for word in plain if word.endswith((".yaml", ".yml", ".json"))]
    names += [str(given[key]) for key in CONFIGS if isinstance(given.get(key), str)]
    for name in names:
        path = next((path for path in (Path(name), folder / name) if path.is_file()), None)
        if path is None:
            raise RecipeError(f"the command reads {name}, which is not here: run the import where it is")
        yield path


def _value(value: object) -> Any:
    """An option's value as YAML would read it: a number, true or false, a list in brackets, else text."""
    if isinstance(value, list):
        return [_value(item) for item in value]
    if not isinstance(value, str):
        return value
    try:
        read_value = yaml.load(value, Loader) if value.strip() else value
    except (yaml.YAMLError, ValueError, TooMuch):
        return value
    return read_value if not isinstance(read_value, dict) or (":" in value and value.startswith("{")) else value


def _yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises RecipeError."""
    try:
        values = yaml.load(read(path), Loader)
    except (yaml.YAMLError, ValueError, OSError) as error:
        raise RecipeError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a mapping of keys is wanted")
    if "stages" in values:
        raise RecipeError(f"{path} has `stages`: it is a recipe of Trimtab's already")
    return {str(key): value for key, value in values.items()}
