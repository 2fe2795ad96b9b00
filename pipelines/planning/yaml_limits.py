"""How much YAML is read: a file from a stranger must not cost more than its length.

Nine anchors in 416 bytes stand for half a billion values, an anchor may contain itself, and ten thousand brackets need
as many calls inside of each other. Each is refused before anything is built from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20  # bytes of a file
DEEPEST = 40  # mappings and lists in each other
MOST = 10_000  # values, an anchor's counted wherever it is used
LONGEST = 100  # characters of a number


class TooMuch(yaml.MarkedYAMLError):
    """Raised for YAML beyond the limits; the mark says where."""


class Limited(yaml.SafeLoader):
    """PyYAML's safe loader within the limits. Raises TooMuch."""

    def __init__(self, stream: Any):
        super().__init__(stream)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        self._depth += 1
        self._count += 1
        if self._depth > DEEPEST:
            raise TooMuch(None, None, f"nested deeper than {DEEPEST} levels", event.start_mark)
        if self._count > MOST:
            raise TooMuch(None, None, f"more than {MOST:,} values: rows belong in a file of data", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        root = super().get_single_node()
        if root is not None:
            _expanded(root, {}, 1)
        return root

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and len(value) > LONGEST and isinstance(implicit, tuple):
            implicit = (False, True)  # text: looking for a number in it may take the square of its length
        return super().resolve(kind, value, implicit)


def read(path: str | Path) -> str:
    """The text of a YAML file. Raises TooMuch for one that is too long, UnicodeDecodeError and OSError."""
    with Path(path).open("rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise TooMuch(None, None, f"the file has more than {LARGEST >> 20} MiB", None)
    return content.decode("utf-8-sig")


def _expanded(node: yaml.Node, sizes: dict[int, int | None], depth: int) -> int:
    """How many values a node stands for. Raises TooMuch for too many, too deep ones, and for a node inside itself."""
    if depth > DEEPEST:
        raise TooMuch(None, None, f"nested deeper than {DEEPEST} levels", node.start_mark)
    if not isinstance(node, yaml.CollectionNode):
        return 1
    known = sizes.get(id(node), 0)
    if known is None:
        raise TooMuch(None, None, "an anchor contains itself", node.start_mark)
    if known:
        return known
    sizes[id(node)] = None  # until it is counted
    total = 1
    for child in node.value:
        for part in child if isinstance(child, tuple) else (child,):
            total += _expanded(part, sizes, depth + 1)
    if total > MOST:
        raise TooMuch(None, None, f"anchors stand for more than {MOST:,} values", node.start_mark)
    sizes[id(node)] = total
    return total
