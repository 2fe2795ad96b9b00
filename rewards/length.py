"""Reward kind `length`: how near a completion is to a wanted length.

rewards: {brief: {kind: length, target: 40}}
"""

from dataclasses import dataclass
from typing import Any, Literal

from trimtab.rewards import text


@dataclass(kw_only=True)
class Length:
    """-|n - target| / target, 0 at the target; with `at_most`, shorter costs nothing. `n` counts `unit`s."""

    target: int
    unit: Literal["words", "characters", "tokens"] = "words"
    at_most: bool = False

    def __post_init__(self) -> None:
        if self.target < 1:
            raise ValueError(f"length: target must be at least 1, got {self.target}")

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float]:
        if self.unit == "tokens":
            counts = [len(ids) for ids in columns["completion_ids"]]
        elif self.unit == "words":
            counts = [len(text(completion).split()) for completion in completions]
        else:
            counts = [len(text(completion)) for completion in completions]
        if self.at_most:
            return [-max(0, count - self.target) / self.target for count in counts]
        return [-abs(count - self.target) / self.target for count in counts]
