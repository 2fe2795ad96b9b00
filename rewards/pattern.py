"""Reward kind `pattern`: whether (or how often) a regular expression is found in a completion.

rewards: {boxed: {kind: pattern, regex: '\\\\boxed\\{.+\\}'}}
"""

import re
from dataclasses import dataclass
from typing import Any

from trimtab.rewards import text


@dataclass(kw_only=True)
class Pattern:
    """1 where `regex` is found and 0 where not, the other way round with `absent`; with `count`, how many times."""

    regex: str
    absent: bool = False
    count: bool = False

    def __post_init__(self) -> None:
        try:
            self._compiled = re.compile(self.regex, re.DOTALL)
        except re.error as error:
            raise ValueError(f"pattern: {self.regex!r} is not a regular expression: {error}") from None

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float]:
        counts = [len(self._compiled.findall(text(completion))) for completion in completions]
        if self.count:
            return [float(n) for n in counts]
        return [float((n > 0) != self.absent) for n in counts]
