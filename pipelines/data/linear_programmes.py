"""Linear programmes as word problems, with their five elements, a program that solves them, and their optimum.

The five elements are those of LLMOPT (https://arxiv.org/abs/2410.13213): sets, parameters, variables, objective and
constraints. All randomness comes from the `random.Random` that is passed in; the optimum is scipy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

PRODUCTS = ("chairs", "tables", "lamps", "shelves", "beds", "desks", "boats", "kites", "drums", "coats")
RESOURCES = ("hours of work", "kilos of wood", "litres of paint", "metres of cloth", "boxes of screws")
FOODS = ("oats", "beans", "milk", "eggs", "rice", "apples", "bread", "cheese", "peas", "nuts")
NUTRIENTS = ("grams of protein", "grams of fibre", "units of iron", "units of calcium", "grams of fat")


@dataclass(frozen=True)
class Programme:
    """`gains` are of one unit of each of `names`, which needs or gives `rates[row]` of each of `sources`.

    Where `is_maximum`, the sum of gains is to be as large as the `limits` of the sources allow, else as small.
    """

    is_maximum: bool
    names: tuple[str, ...]
    gains: tuple[int, ...]
    sources: tuple[str, ...]
    rates: tuple[tuple[int, ...], ...]
    limits: tuple[int, ...]

    def __str__(self) -> str:
        gain, verb, end = (
            ("earns", "needs", "There are") if self.is_maximum else ("costs", "has", "A day needs at least")
        )
        sentences = []
        for place, (name, value) in enumerate(zip(self.names, self.gains, strict=True)):
            amounts = [f"{row[place]} {source}" for row, source in zip(self.rates, self.sources, strict=True)]
            sentences.append(f"A unit of {name} {gain} {value} dollars and {verb} {_listed(amounts)}.")
        limits = [f"{limit} {source}" for limit, source in zip(self.limits, self.sources, strict=True)]
        wanted = "What is the largest income" if self.is_maximum else "What is the smallest cost"
        return " ".join([*sentences, f"{end} {_listed(limits)}.", f"{wanted}? Parts of a unit are allowed."])

    def elements(self) -> str:
        """The five elements, a line each."""
        group, sign = ("products", "<=") if self.is_maximum else ("foods", ">=")
        rows = zip(self.rates, self.limits, self.sources, strict=True)
        constraints = [f"{self._sum(row)} {sign} {limit} ({source})" for row, limit, source in rows]
        parts = {
            "Sets": f"{group}: {', '.join(self.names)}; limits: {', '.join(self.sources)}",
            "Parameters": f"dollars of each: {', '.join(map(str, self.gains))}",
            "Variables": f"units of {', '.join(self.names)}, at least 0",
            "Objective": f"{'maximise' if self.is_maximum else 'minimise'} {self._sum(self.gains)}",
            "Constraints": "; ".join(constraints),
        }
        return "\n".join(f"{name}: {said}" for name, said in parts.items())

    def program(self) -> str:
        """Python that leaves the optimum in `answer`."""
        sign = -1 if self.is_maximum else 1
        costs = [sign * gain for gain in self.gains]
        rates = [[-sign * rate for rate in row] for row in self.rates]
        limits = [-sign * limit for limit in self.limits]
        call = f"best = linprog({costs}, A_ub={rates}, b_ub={limits})"
        return f"from scipy.optimize import linprog\n\n{call}\nanswer = {'-' if self.is_maximum else ''}best.fun\n"

    def optimum(self) -> float:
        """The largest sum of gains, or the smallest."""
        from scipy.optimize import linprog

        sign = -1 if self.is_maximum else 1
        rates = [[-sign * rate for rate in row] for row in self.rates]
        limits = [-sign * limit for limit in self.limits]
        return sign * float(linprog([sign * gain for gain in self.gains], A_ub=rates, b_ub=limits).fun)

    def _sum(self, factors: Sequence[int]) -> str:
        return " + ".join(f"{factor} {name}" for factor, name in zip(factors, self.names, strict=True))


def drawn(rng: Random) -> Iterator[Programme]:
    """Programmes without end, no two alike: of two or three variables, with two or three limits."""
    seen: set[Programme] = set()
    while True:
        is_maximum = rng.random() < 0.5
        names, sources = (PRODUCTS, RESOURCES) if is_maximum else (FOODS, NUTRIENTS)
        count, rows = rng.randint(2, 3), rng.randint(2, 3)
        programme = Programme(
            is_maximum,
            tuple(rng.sample(names, count)),
            tuple(rng.randint(2, 40) for _ in range(count)),
            tuple(rng.sample(sources, rows)),
            tuple(tuple(rng.randint(1, 9) for _ in range(count)) for _ in range(rows)),
            tuple(10 * rng.randint(2, 30) for _ in range(rows)),
        )
        if programme not in seen:
            seen.add(programme)
            yield programme


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
