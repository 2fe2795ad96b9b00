"""What a generative judge is asked, and what its verdict says. Pure functions: nothing is sent here.

A reply ends with a line such as "Verdict: 7", "Verdict: B" or "Verdict: 2 > 1 > 3"; the last such line counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

Mode = Literal["pointwise", "pairwise", "listwise"]
ANSWERS = {"pointwise": ("completion",), "pairwise": ("first", "second"), "listwise": ("completions",)}
OTHERS = ("prompt", "rubric", "reference", "low", "high")  # what any template may name
NUMBER = r"-?\d+(?:\.\d+)?"
VERDICTS = {
    "pointwise": re.compile(rf"verdict[:\s*]*({NUMBER})(?![\d.]*\d)", re.IGNORECASE),
    "pairwise": re.compile(r"verdict[:\s*\[]*(a|b|tie)\b", re.IGNORECASE),
    "listwise": re.compile(r"verdict[:\s*]*(\d+(?:\s*>\s*\d+)*)", re.IGNORECASE),
}
QUESTION = """\
You judge answers to a question, by this rubric:
{{ rubric }}

[Question]
{{ prompt }}
{% if reference %}
[Reference answer]
{{ reference }}
{% endif %}
"""
TEMPLATES = {
    "pointwise": QUESTION
    + """[Answer]
{{ completion }}

Say briefly how well the answer does, then end with a line "Verdict: N", N a number from {{ low }} (worst) \
to {{ high }} (best).""",
    "pairwise": QUESTION
    + """[Answer A]
{{ first }}

[Answer B]
{{ second }}

Say briefly which answer does better, whatever its place and length, then end with a line "Verdict: A", \
"Verdict: B" or "Verdict: tie".""",
    "listwise": QUESTION
    + """{% for completion in completions %}[Answer {{ loop.index }}]
{{ completion }}

{% endfor %}Compare the answers briefly, whatever their places and lengths, then end with a line that ranks all of \
them, best first, such as "Verdict: 2 > 1 > 3".""",
}


def template(mode: Mode, source: str | None) -> Any:
    """The jinja template of a question. Raises ValueError for one that does not name what is to be judged."""
    from jinja2 import TemplateSyntaxError, meta
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment()
    source = TEMPLATES[mode] if source is None else source
    try:
        names = meta.find_undeclared_variables(environment.parse(source))
    except TemplateSyntaxError as error:
        raise ValueError(f"judge: template, line {error.lineno}: {error.message}") from None
    known = {*ANSWERS[mode], *OTHERS}
    if names - known:
        unknown = ", ".join(sorted(names - known))
        raise ValueError(f"judge: template: nothing is called {unknown} (known: {', '.join(sorted(known))})")
    if missing := [name for name in ANSWERS[mode] if name not in names]:
        raise ValueError(f"judge: template: a {mode} judge has to be shown {{{{ {' }} and {{ '.join(missing)} }}}}")
    return environment.from_string(source)


def grade(reply: str, low: float, high: float) -> float:
    """The number of a pointwise verdict. Raises ValueError without one, or for one outside the scale."""
    number = float(_verdict("pointwise", reply))
    if not low <= number <= high:
        raise ValueError(f"the verdict {number:g} is not between {low:g} and {high:g}")
    return number


def preferred(reply: str) -> Literal["a", "b", "tie"]:
    """Which answer a pairwise verdict prefers. Raises ValueError without a verdict."""
    return _verdict("pairwise", reply).lower()  # type: ignore[return-value]


def order(reply: str, count: int) -> list[int]:
    """The places of a listwise verdict's answers, from 0 on, best first. Raises ValueError for another ranking."""
    places = [int(number) - 1 for number in re.findall(r"\d+", _verdict("listwise", reply))]
    if sorted(places) != list(range(count)):
        raise ValueError(f"the verdict does not rank {count} answers")
    return places


def in_both_orders(forward: str, backward: str) -> tuple[float, bool]:
    """The score of an answer that was A `forward` and B `backward`, and whether its judge has flipped.

    1 for a win, 0 for a loss, 0.5 for a tie. One win and one loss are a flip: what was preferred is a place.
    """
    points = {"a": 1.0, "b": 0.0, "tie": 0.5}
    first, second = points[forward], 1 - points[backward]
    if {first, second} == {0.0, 1.0}:
        return 0.5, True
    return (first + second) / 2, False


def by_rank(places: Sequence[int]) -> list[float]:
    """The score of each answer from a ranking, best first: 1 for the best, 0 for the worst, evenly between."""
    scores = [0.0] * len(places)
    for rank, place in enumerate(places):
        scores[place] = 1 - rank / (len(places) - 1)
    return scores


def _verdict(mode: Mode, reply: str) -> str:
    verdicts = VERDICTS[mode].findall(reply)
    if not verdicts:
        raise ValueError("there is no verdict in the reply")
    return verdicts[-1]
