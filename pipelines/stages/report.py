"""Kind `report`: a recipe's run as one HTML page that needs nothing else: no script, no network, light, dark or paper.

    report: {}                                    # every step above
    report: {steps: [$sft, $dpo, $evaluate], samples: 4}

The page is made from what the steps left (done.json, metrics.jsonl, evaluation.json, completions), so it can be made
again at any time. What is missing or broken there is said on the page and stops nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trimtab.pipelines.forecasting.work import Work
from trimtab.pipelines.stages import Metrics, Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Report(Stage):
    """Artifact: `report.html`. `samples` is the number of prompts whose completions are shown side by side."""

    steps: list[str]
    samples: int = 8

    takes_stopped: ClassVar[bool] = True

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        yield name, kind, {"steps": [f"${step}" for step in above], **options}

    def work(self, known: Known) -> Work:
        return Work(figures=len(self.steps))

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        from trimtab.pipelines.reporting import page, records

        if not PartialState().is_main_process:
            return {}
        names = {str(source.output): source for source in step.inputs}
        steps = [records.read(Path(path), names.get(path)) for path in dict.fromkeys(self.steps)]
        html = page.render(steps, self.samples, step.recipe)
        (step.output / "report.html").write_text(html, encoding="utf-8", errors="replace")
        return {"steps": len(steps), "unfinished": sum(not record["done"] for record in steps)}
