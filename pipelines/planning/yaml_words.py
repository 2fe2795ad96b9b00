"""A recipe's YAML as people mean it: plain words stay words, and numbers are the decimal numbers that are written.

YAML 1.1 reads `no` as false, `1:30` as 90, `012` as 10, `2026-01-01` as a date and `5e-7` as a string. Here `no`,
`off`, `yes` and `on` are words until the type of their key is known, `5e-7` is a number, and the others are strings.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

from trimtab.pipelines.planning.yaml_limits import LONGEST, Limited

BOOLEANS = {"no": False, "off": False, "yes": True, "on": True}
TAG = "tag:yaml.org,2002:"
RESOLVED = {
    "bool": r"(?i:true|false|yes|no|on|off)",
    "int": r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)",
    "float": r"[-+]?(?:(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+|\d[\d_]*\.\d*|\.\d+|\.(?i:inf))|\.(?i:nan)",
    "null": r"~|(?i:null)|",
    "merge": r"<<",
}


class Word(str):
    """An unquoted `no`, `off`, `yes` or `on`: a word where the type of its key is one, else true or false.

    It is as true as it says, also before its type is known.
    """

    def __bool__(self) -> bool:
        return BOOLEANS[self.lower()]


class Loader(Limited):
    """PyYAML's safe loader, within limits, with the resolvers above in the place of YAML 1.1's."""

    yaml_implicit_resolvers: ClassVar[dict[Any, Any]] = {}


class Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also writes a Word, as it was written."""


def settled(value: Any) -> Any:
    """The value with true or false for every word in it whose type nobody has said."""
    if isinstance(value, Word):
        return bool(value)
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items()}
    return [settled(item) for item in value] if isinstance(value, list) else value


def _boolean(loader: Loader, node: yaml.ScalarNode) -> bool | Word:
    return Word(node.value) if node.value.lower() in BOOLEANS else node.value.lower() == "true"


def _whole(loader: Loader, node: yaml.ScalarNode) -> int:
    if len(node.value) > LONGEST:
        raise ValueError(f"a number of {len(node.value):,} characters")
    return int(node.value.replace("_", ""), 0)


for name, pattern in RESOLVED.items():
    Loader.add_implicit_resolver(TAG + name, re.compile(f"^(?:{pattern})$"), None)
Loader.add_constructor(f"{TAG}bool", _boolean)
Loader.add_constructor(f"{TAG}int", _whole)
Dumper.add_representer(Word, lambda dumper, word: dumper.represent_scalar(f"{TAG}bool", str(word)))
