"""What was thought, and what was answered, in a text with marks around its thoughts."""

from __future__ import annotations

from collections.abc import Sequence

MARKS = ("<|thinking|>", "<|/thinking|>")


def wrong(marks: Sequence[str]) -> str | None:
    """What is wrong with the marks of the beginning and of the end; None where nothing is."""
    if len(marks) == 2 and all(marks) and marks[0] != marks[1]:
        return None
    return f"expected two marks, of the beginning and of the end, got {list(marks)}"


def split(said: str, begin: str, end: str) -> tuple[str, str]:
    """What stands between the first `begin` and the last `end`, and what stands behind that, without blanks around.

    A text without marks is an answer as a whole, one whose thoughts have no end has no answer, and where the beginning
    was in the prompt all before the end was thought.
    """
    before, mark, answer = said.rpartition(end)
    if not mark:
        answer, mark, thought = said.partition(begin)
        return (thought.strip(), "") if mark else ("", answer.strip())
    head, mark, thought = before.partition(begin)
    return (thought if mark else head).strip(), answer.strip()
