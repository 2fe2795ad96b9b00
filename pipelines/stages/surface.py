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
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from trimtab.pipelines.algorithms import surface
from trimtab.pipelines.planning.errors import RecipeError, suggest
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.stages import Metrics, Stage

if TYPE_CHECKING:
    from trimtab.pipelines.planning.recipe import Step


EDGE = 0.05  # of a reward's range


@dataclass(kw_only=True)
class Surface(Stage):
    """Artifact: `thresholds.json`, `surface.json` (with standard errors, all points), `surface.png`, `summary.txt`."""

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
        for key in ("runs", "rewards"):
            if not getattr(self, key):
                raise RecipeError("name at least one", (*step.path, key))
        for number, run in enumerate(self.runs):
            if not step.pending(run):
                self._points(run, (*step.path, "runs", str(number)))

    def run(self, step: Step) -> Metrics:
        from accelerate import PartialState

        runs = [self._points(run, (*step.path, "runs", str(number))) for number, run in enumerate(self.runs)]
        rows = np.concatenate(runs)
        points, values = rows[:, :-1], rows[:, -1]
        try:
            fitted = surface.fit(
                points, values, kind=self.fit, degree=self.degree, density=self.density, seed=step.seed
            )
        except ValueError as error:
            raise RecipeError(str(error), (*step.path, "runs")) from error
        if PartialState().is_main_process:
            thresholds = dict(zip(self.rewards, fitted.best.tolist(), strict=True))
            (step.output / "thresholds.json").write_text(json.dumps(thresholds, indent=1))
            whole = {
                "thresholds": thresholds,
                "stderr": dict(zip(self.rewards, fitted.best_stderr.tolist(), strict=True)),
                "metric": fitted.value,
                "metric_stderr": fitted.value_stderr,
                "explained": fitted.explained,
                "columns": [*self.rewards, self.metric],
                "runs": [run.tolist() for run in runs],
            }
            (step.output / "surface.json").write_text(json.dumps(whole, indent=1))
            (step.output / "summary.txt").write_text(self._summary(points, len(runs), fitted))
            self._draw(runs, fitted, step.output / "surface.png")
        return {
            "metric/best": fitted.value,
            "metric/best_stderr": fitted.value_stderr,
            "explained": fitted.explained,
            **{f"thresholds/{name}": value for name, value in zip(self.rewards, fitted.best, strict=True)},
        }

    def _points(self, run: str, place: tuple[str, ...]) -> np.ndarray:
        """(n, N + 1): the rewards and the metric of a run, means over windows of logged rows."""
        path = Path(run).parent / "metrics.jsonl"
        rows = [row for row in tracking.read(path) if "train/reward" in row]  # those of steps that have sampled
        names = [*self.rewards, self.metric]
        for name in names:
            if rows and f"train/rewards/{name}/mean" not in rows[0]:
                logged = [key.split("/")[2] for key in rows[0] if re.fullmatch(r"train/rewards/[^/]*/[^/]*", key)]
                raise RecipeError(f"{path} has no reward {name!r}{suggest(name, logged)}", place)
        keys = [f"train/rewards/{name}/mean" for name in names]
        means = np.array([[row.get(key, np.nan) for key in keys] for row in rows], float)
        starts = range(0, len(means) - self.window + 1, self.window)
        windows = [means[start : start + self.window].mean(0) for start in starts]
        points = [point for point in windows if np.isfinite(point).all()]
        if not points:
            raise RecipeError(f"{path} has fewer than {self.window} logged rollouts", place)
        return np.array(points)

    def _summary(self, points: np.ndarray, runs: int, fitted: surface.Surface) -> str:
        lines = [f"{self.metric} is largest, {fitted.value:.4g} +- {fitted.value_stderr:.2g}, at"]
        low, high = points.min(0), points.max(0)
        edges = []
        for i, name in enumerate(self.rewards):
            value = fitted.best[i]
            lines.append(f"    {name} {value:.4g} +- {fitted.best_stderr[i]:.2g}")
            if min(value - low[i], high[i] - value) < EDGE * (high[i] - low[i]):
                edges.append(name)
        if edges:
            seen = f"that is at the edge of what was seen of {' and '.join(edges)}"
            lines.append(f"{seen}: the metric may be better beyond")
        fit = f"a {self.fit.replace('_', ' ')} over {len(points)} points of {runs} runs"
        lines.append(f"{fit}, which explains {fitted.explained:.0%} of their variance")
        return "\n".join(lines) + "\n"

    def _draw(self, runs: list[np.ndarray], fitted: surface.Surface, path: Path) -> None:
        """The surface over the first two rewards (or one) at the points that were seen, and the paths of the runs."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axis = pyplot.subplots(figsize=(5, 4), layout="constrained")
        if len(self.rewards) == 1:
            axis.plot(fitted.grid[:, 0], fitted.mean, lw=1.2)
            for points in runs:
                axis.plot(points[:, 0], points[:, -1], ".", ms=4)
            axis.axvline(fitted.best[0], color="0.4", lw=0.8, ls="--")
            axis.set(xlabel=self.rewards[0], ylabel=self.metric)
        else:
            drawn = axis.tricontourf(fitted.grid[:, 0], fitted.grid[:, 1], fitted.mean, levels=14, cmap="viridis")
            figure.colorbar(drawn, label=self.metric)
            for points in runs:
                axis.plot(points[:, 0], points[:, 1], "-", color="white", lw=0.7, alpha=0.7)
            axis.errorbar(*fitted.best[:2], *fitted.best_stderr[1::-1], fmt="o", color="red", ms=5, lw=1)
            axis.set(xlabel=self.rewards[0], ylabel=self.rewards[1])
        figure.savefig(path, dpi=130)
        pyplot.close(figure)
