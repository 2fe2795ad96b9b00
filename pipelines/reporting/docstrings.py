"""Docstrings as Markdown: prose stays prose, and an indented example becomes a block of code in its language."""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator

INDENT = "    "
STATEMENTS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def markdown(docstring: str) -> str:
    """The docstring as Markdown.

    Examples are indented, or stand at the margin as a mapping of mappings: `rewards: {brief: {kind: length}}`.
    """
    blocks = []
    for block in _blocks(docstring):
        code = textwrap.dedent(block).strip("\n")
        if block.startswith(INDENT):
            blocks.append(f"```{language(code)}\n{code}\n```")
        elif _is_recipe(code):
            blocks.append(f"```yaml\n{code}\n```")
        else:
            blocks.append(block.strip())
    return "\n\n".join(blocks)


def language(code: str) -> str:
    """json, yaml or python, and text for what is none of them, such as a table of words."""
    lines = [line for line in code.splitlines() if line.strip()]
    if _is_json(code) or all(_is_json(line) for line in lines):
        return "json"
    if _keys_and_values(code):
        return "yaml"
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return "text"
    return "python" if any(isinstance(node, STATEMENTS) for node in ast.walk(tree)) else "text"


def summary(docstring: str) -> str:
    """The first paragraph in one line, without its subject: "several rewards as one" of "Kind `composite`: ..."."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.sub(r"^[\w ]+ `\w+`: ", "", paragraph).rstrip(".:")


def _blocks(docstring: str) -> Iterator[str]:
    """Paragraphs and examples; an example goes on after a blank line when what follows is indented too."""
    example = ""
    for block in re.split(r"\n[ \t]*\n", docstring.strip("\n")):
        if block.startswith(INDENT):
            example = f"{example}\n\n{block}" if example else block
            continue
        if example:
            yield example
            example = ""
        yield block
    if example:
        yield example


def _is_json(code: str) -> bool:
    try:
        return isinstance(json.loads(code), dict | list)
    except ValueError:
        return False


def _keys_and_values(code: str) -> dict[str, object]:
    """The YAML mapping that the code is, with a word for each key; empty where it is none."""
    import yaml

    try:
        value = yaml.safe_load(code)
    except yaml.YAMLError:
        return {}
    words = isinstance(value, dict) and all(isinstance(key, str) and len(key.split()) == 1 for key in value)
    return value if words else {}


def _is_recipe(paragraph: str) -> bool:
    values = _keys_and_values(paragraph).values()
    return bool(values) and all(isinstance(value, dict) for value in values)
