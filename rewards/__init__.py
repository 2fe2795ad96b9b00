"""Rewards: one file per kind. The YAML word is the file name, the class its CamelCase, its fields the YAML keys.

To add `kind: brevity`, write `rewards/brevity.py` with a dataclass `Brevity` that satisfies `Reward`. No registry.
Rewards import nothing of `pipelines`, so each one also works alone in a notebook and in TRL's `reward_funcs`.
"""

from typing import Any, Protocol


class Reward(Protocol):
    """TRL's reward-function signature.

    `prompts` and `completions` have equal length and hold strings or lists of chat messages; further dataset columns
    arrive by name. Returns one item per completion: a score, or None to abstain (not of my kind). A failure (a dead
    server, a timeout) is raised and is never a score.
    """

    def __call__(self, prompts: list, completions: list, **columns: Any) -> list[float | None]: ...


def text(completion: str | list[dict[str, Any]]) -> str:
    """The plain text of a prompt or completion: itself, or its chat messages joined by newlines."""
    if isinstance(completion, str):
        return completion
    return "\n".join(message["content"] or "" for message in completion)
