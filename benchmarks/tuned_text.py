"""Texts rewritten from failures against blind rewrites by the same reflector at the same budget, all by script.

    python benchmarks/tuned_text.py          # a minute on one core; needs trimtab[tuning]; save=yes keeps the numbers
    python benchmarks/tuned_text.py seeds=50

There is no language model in it: what is measured is the search of `tune_text`. A prompt needs one of 12 rules. The
policy answers it right with probability 0.9 where that stands in the text before it, and 0.1 where not, each prompt
with a random number of its own. The reflector adds one rule out of 36 to a text, of which prompts need 12. It takes
the rule from what it is shown of the failures with probability `hears`, else any of the 36, so that `hears 0` does not
understand; with `method: random` it is shown none, and takes any. Texts are chosen by 16 prompts, other than the 32
whose failures are shown; printed is the share of 200 held-out prompts that are answered right with the best text, the
mean over seeds with its standard error. At the start it is 0.1, and at most 0.9.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
from datasets import Dataset

from trimtab.pipelines.scoring.rewriting import Told
from trimtab.pipelines.scoring.text_search import TextSearch

RULES, USELESS = 12, 24
LEARNING, CHOOSING, JUDGING = 32, 16, 200
BUDGETS = (100, 200, 400, 800)


@dataclass(kw_only=True)
class Scripted(TextSearch):
    """The search, from an empty text."""

    @property
    def written(self) -> str:
        return ""


class Prompts:
    """Prompts that need a rule each, and a policy that knows them from the text alone."""

    size = 1000

    def __init__(self, seed: int):
        draw = Random(seed)
        self.needs = [draw.randrange(RULES) for _ in range(LEARNING + CHOOSING + JUDGING)]
        self.luck = [draw.random() for _ in self.needs]

    def asked(self, row: int) -> str:
        return f"prompt {row}"

    def __call__(self, text: str, rows: Sequence[int]) -> list[Told]:
        known = set(map(int, text.split()))
        told = []
        for row in rows:
            rule = self.needs[row]
            is_right = self.luck[row] < (0.9 if rule in known else 0.1)
            told.append(Told(float(is_right), "", "" if is_right or rule in known else f"missing: {rule}."))
        return told


def reflector(hears: float, seed: int) -> Any:
    """What adds a rule to the text in a question, one that is missing there with probability `hears`."""
    draw = Random(seed)

    def reply(question: str) -> str:
        missing = [part.split(".")[0] for part in question.split("missing: ")[1:]]
        hit = missing and draw.random() < hears
        rule = draw.choice(missing) if hit else str(draw.randrange(RULES + USELESS))
        return f"```\n{question.split('```')[1].strip()} {rule}\n```"

    return reply


def share(method: Any, hears: float, budget: int, seed: int) -> float:
    """The share of held-out prompts that are right with the text that a search finds."""
    with tempfile.TemporaryDirectory() as folder:
        step: Any = SimpleNamespace(seed=seed, dir=Path(folder), output=Path(folder), name="tune", path=("tune",))
        search = Scripted(reflector=reflector(hears, seed), budget=budget, method=method)
        rows = [Dataset.from_dict({"row": range(count)}) for count in (LEARNING, CHOOSING, JUDGING)]
        return search.search(step, lambda _: Prompts(seed), *rows)["held_out/best"]


def main(seeds: str = "20", save: str = "no") -> None:
    arms: list[tuple[str, Any, float]] = [
        ("hears 1", "reflect", 1.0),
        ("hears 0.5", "reflect", 0.5),
        ("hears 0", "reflect", 0.0),
        ("random", "random", 0.0),
    ]
    rows: list[dict[str, Any]] = [
        {"calls": budget,
         **{name: [share(method, hears, budget, seed) for seed in range(int(seeds))] for name, method, hears in arms}}
        for budget in BUDGETS
    ]  # fmt: skip
    stored_numbers.show("tuned-texts", {"shares": rows}, seeds=seeds)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
