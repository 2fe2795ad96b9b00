"""Kind `require`: numbers that a step has to have reached before the run goes on. What `require` of a stage becomes.

    helpful: {kind: reward, ..., require: {eval/accuracy: ">= 0.65", eval/loss: "< 0.6"}}
    enough: {kind: require, step: $helpful, require: {eval/accuracy: 0.65}}     # the same, at a place of one's own

`require` names metrics of the step, as they stand in its done.json, and what each has to be: a number behind `>=`,
`>`, `<=` or `<`, or one alone, which is the least. Where one is missed the run ends here with the number and its
standard error: the step itself is done and its evidence kept, and the steps below are pending. They go on when the
recipe asks for less, or the step has become another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.planning import bounds
from trimtab.pipelines.planning.errors import Mistakes, RecipeError, suggest
from trimtab.pipelines.recording import artifacts
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step
    from trimtab.pipelines.shrinking.miniature import Miniature


LOWEST = -1e300


@dataclass(kw_only=True)
class Require(Stage):
    """`step` is a stage above."""

    step: str
    require: dict[str, bounds.Bound] = field(default_factory=dict)

    shows: ClassVar[Shows] = Shows(results=("*",))

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        return {f"require.{name}": LOWEST for name in block.get("require") or {}}  # a shrunk run reaches nothing

    def check(self, step: Step) -> None:
        if not step.inputs:
            raise RecipeError(f"{self.step!r} is no stage of this recipe: write $name", (*step.path, "step"))
        if not self.require:
            raise RecipeError('requires nothing: name a metric and its bound, `">= 0.65"`', (*step.path, "require"))
        super().check(step)

    def run(self, step: Step) -> Metrics:
        record = artifacts.read_done(Path(self.step).parent)
        metrics = record["metrics"] if record else {}
        mistakes = Mistakes()
        for name, limit in self.require.items():
            with mistakes.collected():
                value = _metric(name, metrics, (*step.path, "require", name))
                if words := bounds.missed(value, str(limit)):
                    raise RecipeError(_missed(name, metrics, words), (*step.path, "require", name))
        mistakes.raise_any()
        return {name: metrics[name] for name in self.require}


def _metric(name: str, metrics: Metrics, place: tuple[str, ...]) -> float:
    if name not in metrics:
        raise RecipeError(f"there is no such number{suggest(name, metrics)} (there are {', '.join(metrics)})", place)
    return metrics[name]


def _missed(name: str, metrics: Metrics, limit: str) -> str:
    stderr = metrics.get(f"{name.removesuffix('mean')}stderr")
    spread = "" if stderr is None else f" +- {stderr:.3g}"
    return f"is {metrics[name]:.4g}{spread}, and {limit} is required: the run ends here, with the step kept"
