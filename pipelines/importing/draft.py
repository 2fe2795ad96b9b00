"""One stage in the making, with the account of every key that it came from."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trimtab.pipelines.importing.sources import Source
from trimtab.pipelines.planning import kinds
from trimtab.pipelines.planning.yaml_words import settled


class Verdict(enum.StrEnum):
    """What became of a key: `unknown` is one that nothing here knows, to be looked at by hand."""

    KEPT = "kept"
    RENAMED = "renamed"
    CHANGED = "changed"
    DROPPED = "dropped"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Entry:
    """A key of the source: what became of it, where it stands now, and why."""

    key: str
    value: Any
    verdict: Verdict
    to: str = ""
    why: str = ""


@dataclass
class Draft:
    """A stage of the kind `kind`. `left` holds what has not been accounted for, `notes` what is to be done by hand."""

    kind: str
    source: Source
    left: dict[str, Any]
    block: dict[str, Any] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, kind: str, source: Source) -> Draft:
        """An empty stage, with every key of the source still to be accounted for."""
        return cls(kind, source, dict(source.values))

    def takes_prompts(self) -> bool:
        """Whether a stage of the kind draws the answers that it trains on."""
        return kinds.find(kinds.STAGES, self.kind).takes_prompts()

    def look(self, *keys: str) -> Any:
        """The value of the first of the keys that is there and not null, which stays to be accounted for."""
        return next((settled(self.left[key]) for key in keys if self.left.get(key) is not None), None)

    def keep(self, key: str, to: str) -> None:
        """Takes a key over as it is, at the path `to` of the stage."""
        self.put(to, self.left[key])
        verdict = Verdict.KEPT if to.rpartition(".")[2] == key else Verdict.RENAMED
        self._account(key, verdict, to)

    def change(self, key: str, to: str, value: Any, why: str) -> None:
        """Puts another value at the path `to`, for the reason `why`."""
        self.put(to, value)
        self._account(key, Verdict.CHANGED, to, why)

    def settle(self, key: str, to: str, why: str) -> None:
        """Accounts for a key whose value is already a part of what stands at the path `to`."""
        self._account(key, Verdict.CHANGED, to, why)

    def rename(self, key: str, to: str, value: Any = None, why: str = "") -> None:
        """Puts the key's value, or `value`, which says the same, at the path `to`."""
        self.put(to, self.left[key] if value is None else value)
        self._account(key, Verdict.RENAMED, to, why)

    def drop(self, key: str, why: str) -> None:
        """Leaves a key out, for the reason `why`, which also says what to do instead."""
        self._account(key, Verdict.DROPPED, "", why)

    def drop_all(self, reasons: dict[str, str]) -> None:
        """Leaves out those of the keys that are there."""
        for key in [key for key in self.left if key in reasons]:
            self.drop(key, reasons[key])

    def drop_matching(self, reasons: Iterable[tuple[str, str]]) -> None:
        """Leaves out the keys that patterns stand for, each with the reason of the first pattern that fits."""
        patterns = list(reasons)
        for key in list(self.left):
            reason = next((why for pattern, why in patterns if re.match(pattern, key)), None)
            if self.left[key] is None:
                self.drop(key, "is null, which is to say: the default")
            elif reason:
                self.drop(key, reason)

    def unknown(self, key: str, why: str = "no counterpart is known: look it up where it came from") -> None:
        """Leaves out a key that has to be looked at by hand."""
        self._account(key, Verdict.UNKNOWN, "", why)

    def refuse(self, path: str, why: str) -> None:
        """Takes back what stands at a path, since the planner does not take it."""
        parent, _, last = path.rpartition(".")
        self.at(parent).pop(last, None)
        for index, entry in enumerate(self.entries):
            if entry.to == path:
                self.entries[index] = Entry(entry.key, entry.value, Verdict.DROPPED, "", why)

    def put(self, path: str, value: Any) -> None:
        """Sets a value of the stage."""
        *parents, last = path.split(".")
        target = self.block
        for name in parents:
            target = target.setdefault(name, {})
        target[last] = value

    def at(self, path: str) -> dict[str, Any]:
        """The block at a path of the stage, empty where there is none."""
        target: Any = self.block
        for name in filter(None, path.split(".")):
            target = target.get(name) if isinstance(target, dict) else None
        return target if isinstance(target, dict) else {}

    def entry(self, path: str) -> Entry | None:
        """The entry of what stands at a path of the stage."""
        return next((entry for entry in self.entries if entry.to == path), None)

    def _account(self, key: str, verdict: Verdict, to: str = "", why: str = "") -> None:
        self.entries.append(Entry(key, self.left.pop(key), verdict, to, why))
