"""Where the answer of a worked solution stands, and the number that it is. Pure functions of text.

\\boxed{42}   the last box
#### 42       what follows the last mark, to the end of its line
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from fractions import Fraction
from typing import Literal

Form = Literal["any", "boxed", "hashes"]
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}")
SHORT_FRACTION = re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)")
DECIMAL = r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
NUMBER = re.compile(rf"(?:(?<![\w.)])-\s*)?{DECIMAL}(?:\s*/\s*{DECIMAL})?")


def marked(solution: str, form: Form = "any") -> str | None:
    """What stands in the last box, or behind the last ####; None where there is no such mark."""
    if form != "hashes" and (boxed := in_box(solution)) is not None:
        return boxed
    _, mark, rest = solution.rpartition("####")
    if form == "boxed" or not mark:
        return None
    return (rest.strip().splitlines() or [""])[0].strip()


def in_box(solution: str) -> str | None:
    """The content of the last box whose braces close; None without one."""
    for start in reversed([box.end() for box in BOX.finditer(solution)]):
        depth = 1
        for end in range(start, len(solution)):
            depth += {"{": 1, "}": -1}.get(solution[end], 0)
            if depth == 0:
                return solution[start:end].strip()
    return None


def vote(completion: str) -> Hashable | None:
    """What a completion votes for: its answer as a number, or as it stands; None for one without an answer."""
    answer = marked(completion)
    value = number(completion if answer is None else answer)
    return answer if value is None else value


def number(answer: str) -> Fraction | None:
    """The last number in a text, exactly: an integer, a decimal or a fraction, with thousands marked or not."""
    plain = answer.replace("\u2212", "-").replace("\\,", "").replace("\\!", "").replace("{,}", ",").replace("$", "")
    plain = SHORT_FRACTION.sub(r"\1/\2", FRACTION.sub(r"\1/\2", plain))
    numbers = NUMBER.findall(plain)
    if not numbers:
        return None
    above, _, below = re.sub(r"[\s,]", "", numbers[-1]).partition("/")
    try:
        return Fraction(above) / Fraction(below or "1")
    except (ValueError, ZeroDivisionError):  # more digits than Python reads, or nothing to divide by
        return None
