"""Command lines and shell scripts as lists of words. Nothing of them is executed.

Variables that the script itself sets, arrays and here-documents are put in their places, `${NAME:-default}` is its
default, and everything that only a shell knows, such as `$(nproc)`, stays as it is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

LARGEST = 1 << 20  # characters of a script, and of what variables in a line stand for
TOO_LONG = f"more than {LARGEST:,} characters"
ASSIGNED = re.compile(r"^(?:export\s+|local\s+|declare\s+(?:-\w+\s+)*)?([A-Za-z_]\w*)=(.*)$", re.DOTALL)
HEREDOC = re.compile(r"^\s*read\s.*?([A-Za-z_]\w*)\s*<<-?\s*['\"]?(\w+)['\"]?\s*$")
ARRAY = re.compile(r"^\s*(?:declare\s+-a\s+)?([A-Za-z_]\w*)\+?=\(\s*$")
USED = re.compile(r"\$\{([A-Za-z_]\w*)(?:\[[@*]\])?\}|\$([A-Za-z_]\w*)|\$\{([A-Za-z_]\w*):?-([^{}]*)\}", re.ASCII)
REPEATS = 8  # variables within variables


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a script or a line, word by word. Raises ValueError for what is too long."""
    if len(text) > LARGEST:
        raise ValueError(TOO_LONG)
    variables: dict[str, str] = {}
    for line in _lines(text, variables):
        assigned = ASSIGNED.match(line)
        if assigned and _is_one_word(assigned[2]):
            variables[assigned[1]] = _unquoted(_expanded(assigned[2], variables))
            continue
        words = _words(_expanded(line, variables))
        while words and ASSIGNED.match(words[0]) and len(words) > 1:
            words = words[1:]  # CUDA_VISIBLE_DEVICES=0 in front of a command
        if words:
            yield words


def _lines(text: str, variables: dict[str, str]) -> Iterator[str]:
    """Lines with their continuations joined; here-documents and arrays go to the variables."""
    lines = iter(re.sub(r"[ \t]*\\\r?\n[ \t]*", " ", text).splitlines())
    for line in lines:
        stripped = line.strip()
        if heredoc := HEREDOC.match(line):
            variables[heredoc[1]] = " ".join(_until(lines, heredoc[2]))
        elif array := ARRAY.match(line):
            items = [_without_comment(item) for item in _until(lines, ")")]
            variables[array[1]] = " ".join([variables.get(array[1], ""), *items]).strip()
        elif (one_line := re.match(r"^\s*([A-Za-z_]\w*)\+?=\((.*)\)\s*$", line)) is not None:
            variables[one_line[1]] = " ".join([variables.get(one_line[1], ""), one_line[2]]).strip()
        elif stripped and not stripped.startswith("#"):
            yield stripped


def _until(lines: Iterator[str], end: str) -> Iterator[str]:
    for line in lines:
        if line.strip() == end:
            return
        yield line.strip()


def _without_comment(line: str) -> str:
    return re.sub(r"(^|\s)#.*$", "", line)


def _expanded(text: str, variables: dict[str, str]) -> str:
    for _ in range(REPEATS):
        if sum(len(_value(use, variables)) for use in USED.finditer(text)) > LARGEST:
            raise ValueError(TOO_LONG)
        replaced = USED.sub(lambda use: _value(use, variables), text)
        if replaced == text:
            break
        text = replaced
    return text


def _value(use: re.Match[str], variables: dict[str, str]) -> str:
    name = use[1] or use[2] or use[3]
    if name in variables:
        return variables[name]
    return use[4] if use[4] is not None else use[0]


def _is_one_word(value: str) -> bool:
    """Whether an assignment is all of its line, and not set for a command behind it."""
    if value.startswith("$("):
        return True
    return len(_words(value)) <= 1


def _unquoted(value: str) -> str:
    words = _words(value)
    return words[0] if len(words) == 1 else value.strip()


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # a quotation that goes on over lines
        return line.split()


def options(words: list[str]) -> tuple[list[str], dict[str, object]]:
    """The words of a command without options, and its options: `--key value`, `--key=value`, `--flag`, `key=value`.

    Several values of an option are a list, a flag is True, and values are as they were written.
    """
    plain: list[str] = []
    given: dict[str, object] = {}
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if not word.startswith("--") or word == "--":
            key, equals, value = word.partition("=")
            if equals and re.fullmatch(r"\+{0,2}[A-Za-z_][\w.@/]*", key):
                given[key.lstrip("+")] = value
            elif word.strip() and not re.fullmatch(r"\$@|&&|\|\||[|;&]|\d?>.*|--", word):
                plain.append(word)
            continue
        key, equals, value = word[2:].partition("=")
        values = [value] if equals else []
        while not equals and index < len(words) and _is_value(words[index]):
            values.append(words[index])
            index += 1
        given[key] = True if not values else values[0] if len(values) == 1 else values
    return plain, given


def _is_value(word: str) -> bool:
    if re.fullmatch(r"-\d[\d.e+-]*", word):
        return True
    return not word.startswith("-") and word not in ("$@", "&&", "||", "|", ";", "&") and not re.match(r"\d?>", word)
