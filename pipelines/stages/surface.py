"""Kind `surface`: a metric over several rewards, fitted to logged runs, and the thresholds where it is largest.

    surface: {runs: [$first, $second], rewards: [helpful, brief], metric: gold}

`runs` are steps of kind `constrained` that have logged all `rewards` and the `metric` (with `weight: 0` to be watched
only). A point of the fit is the mean over `window` logged rollouts. `$surface.helpful` is then a number that a
threshold can be. `fit: polynomial` with `degree: 10` is the paper's (arXiv 2310.04373, section 3); the default, a
Gaussian process, also says how sure it is. Where the points' density is below `density` times its largest value, the
surface does not count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


EDGE = 0.05  # of a reward's range


@dataclass(kw_only=True)
class Surface(Stage):
    """Artifact: `thresholds.json`, `surface.json` (with standard errors and all points), `surface.png`,
    `summary.txt`."""

    runs: list[str]
    rewards: list[str]
    metric: str = "metric"
    fit: Literal["gaussian_process", "polynomial"] = "gaussian_process"
    degree: int = 10
    density: float = 0.05
    window: int = 5

    shows: ClassVar[Shows] = Shows(results=("thresholds/*", "metric/best"))

    def check(self, step: Step) -> None:
        for key in ("degree", "window"):
            if getattr(self, key) < 1:
                raise RecipeError(f"must be at least 1, got {getattr(self, key)}", (*step.path, key))
        for at, run in enumerate(self.runs):
            if not step.pending(run):
                self._points(run, (*step.path, "runs", str(at)))

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState
        from trimtab.pipelines.algorithms import surface

        runs = [self._points(run, (*step.path, "runs", str(at))) for at, run in enumerate(self.runs)]
        every = np.concatenate(runs)
        try:
            found = surface.fit(every[:, :-1], every[:, -1], kind=self.fit, degree=self.degree, density=self.density,
                                seed=step.seed)  # fmt: skip
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "runs")) from error
        if PartialState().is_main_process:
            values = dict(zip(self.rewards, found.best.tolist(), strict=True))
            errors = dict(zip(self.rewards, found.best_stderr.tolist(), strict=True))
            (step.output / "thresholds.json").write_text(json.dumps(values, indent=1))
            whole = {
                "thresholds": values,
                "stderr": errors,
                "metric": found.value,
                "metric_stderr": found.value_stderr,
                "explained": found.explained,
                "columns": [*self.rewards, self.metric],
                "runs": [points.tolist() for points in runs],
            }
            (step.output / "surface.json").write_text(json.dumps(whole, indent=1))
            (step.output / "summary.txt").write_text(self._summary(runs, found))
            self._draw(runs, found, step.output / "surface.png")
        return {
            "metric/best": found.value,
            "metric/best_stderr": found.value_stderr,
            "explained": found.explained,
            **{f"thresholds/{name}": value for name, value in zip(self.rewards, found.best, strict=True)},
        }

    def _points(self, run: str, place: tuple[str, ...]) -> np.ndarray:
        """(n, N + 1): the rewards and the metric of a run, means over windows of logged rows."""
        path = Path(run).parent / "metrics.jsonl"
        rows = [row for row in tracking.read(path) if "train/reward" in row]  # those of steps that have sampled
        names = [*self.rewards, self.metric]
        for name in names:
            if rows and f"train/rewards/{name}/mean" not in rows[0]:
                known = [
                    key.split("/")[2] for key in rows[0] if key.startswith("train/rewards/") and key.count("/") == 3
                ]
                raise RecipeError(f"{path} has no reward {name!r}{suggest(name, known)}", place)
        found = np.array([[row.get(f"train/rewards/{name}/mean", np.nan) for name in names] for row in rows], float)
        whole = [found[at : at + self.window].mean(0) for at in range(0, len(found) - self.window + 1, self.window)]
        whole = [point for point in whole if np.isfinite(point).all()]
        if not whole:
            raise RecipeError(f"{path} has fewer than {self.window} logged rollouts", place)
        return np.array(whole)

    def _summary(self, runs: list[np.ndarray], found: Any) -> str:
        lines = [f"{self.metric} is largest, {found.value:.4g} +- {found.value_stderr:.2g}, at"]
        lines += [f"    {name} {value:.4g} +- {error:.2g}" for name, value, error in
                  zip(self.rewards, found.best, found.best_stderr, strict=True)]  # fmt: skip
        every = np.concatenate(runs)[:, :-1]
        low, high = every.min(0), every.max(0)
        edge = [name for name, value, a, b in zip(self.rewards, found.best, low, high, strict=True)
                if min(value - a, b - value) < EDGE * (b - a)]  # fmt: skip
        if edge:
            lines.append(
                f"that is at the edge of what was seen of {' and '.join(edge)}: the metric may be better beyond"
            )
        points = len(every)
        lines.append(f"a {self.fit.replace('_', ' ')} over {points} points of {len(runs)} runs, which explains "
                     f"{found.explained:.0%} of their variance")  # fmt: skip
        return "\n".join(lines) + "\n"

    def _draw(self, runs: list[np.ndarray], found: Any, path: Path) -> None:
        """The surface over the first two rewards (or one) at the points that were seen, and the paths of the runs."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(5, 4), layout="constrained")
        if len(self.rewards) == 1:
            axis.plot(found.grid[:, 0], found.mean, lw=1.2)
            for points in runs:
                axis.plot(points[:, 0], points[:, -1], ".", ms=4)
            axis.axvline(found.best[0], color="0.4", lw=0.8, ls="--")
            axis.set(xlabel=self.rewards[0], ylabel=self.metric)
        else:
            drawn = axis.tricontourf(found.grid[:, 0], found.grid[:, 1], found.mean, levels=14, cmap="viridis")
            figure.colorbar(drawn, label=self.metric)
            for points in runs:
                axis.plot(points[:, 0], points[:, 1], "-", color="white", lw=0.7, alpha=0.7)
            axis.errorbar(*found.best[:2], *found.best_stderr[1::-1], fmt="o", color="red", ms=5, lw=1)
            axis.set(xlabel=self.rewards[0], ylabel=self.rewards[1])
        figure.savefig(path, dpi=130)
        pyplot.close(figure)
