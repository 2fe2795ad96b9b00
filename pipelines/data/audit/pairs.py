"""Two answers to one prompt, each as a string in which the beginning of a conversation is the string's beginning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from trimtab.pipelines.data.audit.conversations import MESSAGE, TURN

TELLING = 20  # characters of a plain text's prompt below which an answer may begin with it by chance


def compare(records: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, np.ndarray, str]]:
    """(class, rows, what is wrong with the first) of pairs of `chosen` and `rejected`, with `prompt` or without."""
    chosen, rejected = records["chosen"], records["rejected"]
    equal = [one == other for one, other in zip(chosen, rejected, strict=True)]
    yield "equal_pairs", np.flatnonzero(equal), "chosen equals rejected"
    if "prompt" in records:
        both = np.intersect1d(begins_again(records["prompt"], chosen), begins_again(records["prompt"], rejected))
        yield "prompt_again", both, "chosen and rejected begin with the prompt that is also given"
    else:
        differ = [_on_other_prompts(one, other) for one, other in zip(chosen, rejected, strict=True)]
        yield "different_prompts", np.flatnonzero(differ), "chosen and rejected are on different prompts"


def begins_again(prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """The rows whose answer begins with the prompt."""
    again = [
        answer.startswith(prompt) and (TURN in prompt or len(prompt) >= TELLING)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return np.flatnonzero(again)


def _on_other_prompts(chosen: str, rejected: str) -> bool:
    """Whether two conversations part at a turn that is not the assistant's."""
    if TURN not in chosen or TURN not in rejected or chosen == rejected:
        return False
    for one, other in zip(chosen.split(MESSAGE), rejected.split(MESSAGE), strict=False):
        if one != other:
            return not (one.startswith(f"assistant{TURN}") or other.startswith(f"assistant{TURN}"))
    return False
