"""Kind `require`: numbers that a step has to have reached before the run goes on.

    good: {kind: require, step: $quality, least: {helpful/accuracy/mean: 0.65}, most: {helpful/calibration/ece: 0.1}}

`least` and `most` name metrics of the step, as they stand in its done.json. Where one is missed the run ends here with
the number and its standard error: the step itself is done and its evidence kept, and the steps below are pending. They
go on when the recipe asks for less, or the step has become another one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from trimtab.pipelines.planning.errors import Mistakes, RecipeError, suggest
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Require(Stage):
    """`step` is a stage above."""

    step: str
    least: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)

    shows: ClassVar[Shows] = Shows(results=("*",))

    def check(self, step: Step) -> None:
        if not step.inputs:
            raise RecipeError(f"{self.step!r} is no stage of this recipe: write $name", (*step.path, "step"))
        if not self.least and not self.most:
            raise RecipeError("requires nothing: name a metric and its `least`, or its `most`", step.path)
        super().check(step)

    def run(self, step: Step) -> Metrics:
        record = artifacts.read_done(Path(self.step).parent)
        metrics = record["metrics"] if record else {}
        mistakes = Mistakes()
        for name, limit in self.least.items():
            with mistakes.collected():
                value = _metric(name, metrics, (*step.path, "least", name))
                if not value >= limit:
                    raise RecipeError(_missed(name, metrics, f"at least {limit:g}"), (*step.path, "least", name))
        for name, limit in self.most.items():
            with mistakes.collected():
                value = _metric(name, metrics, (*step.path, "most", name))
                if not value <= limit:
                    raise RecipeError(_missed(name, metrics, f"at most {limit:g}"), (*step.path, "most", name))
        mistakes.raise_any()
        return {name: metrics[name] for name in {**self.least, **self.most}}


def _metric(name: str, metrics: Metrics, place: tuple[str, ...]) -> float:
    if name not in metrics:
        raise RecipeError(f"there is no such number{suggest(name, metrics)} (there are {', '.join(metrics)})", place)
    return metrics[name]


def _missed(name: str, metrics: Metrics, limit: str) -> str:
    stderr = metrics.get(f"{name.removesuffix('mean')}stderr")
    spread = "" if stderr is None else f" +- {stderr:.3g}"
    return f"is {metrics[name]:.4g}{spread}, and {limit} is required: the run ends here, with the step kept"
