"""Eight modes, one of them rewarded: a small density model retrained on its own curated samples and on real data.

The 2-D experiment of Ferbach, Bertrand, Bose and Gidel 2024 (https://arxiv.org/abs/2407.09499). The real data are a
mixture of 8 Gaussians on a circle, the reward is -gamma times the distance to one centre, flat within a radius of 1.
Each round the curator keeps one of K samples (`pipelines.algorithms.curation.choose`), and the model is fitted to the
kept ones and a share of real ones, starting from the last round's:

    python benchmarks/curation_mixture.py                  # two minutes on one core; save=yes keeps the numbers
    python benchmarks/curation_mixture.py seeds=3 rounds=20 plot=curation_mixture.png

Tells, with standard errors over the seeds, the expected reward, the rewarded mode's share next to that of the exact
recursion on the modes, the modes alive, and the entropy; then all shares after the last round. Without real data one
mode is left after three rounds; a fifth of real data keeps all eight, tilted. Choosing at random shows what the
model's own errors do. `plot` saves samples of the rounds.

The density is a language model of two tokens: x and then y given x, in cells of 0.25, from one multilayer perceptron,
fitted by cross-entropy. Like a language model it knows nothing of Gaussians, gives every cell some probability, and
errs; and a fit takes a second.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers
import torch

from trimtab.pipelines.algorithms import curation

RING, SD, MODES = 4.0, 0.3, 8
ANGLES = 2 * np.pi * np.arange(MODES) / MODES
CENTRES = RING * np.stack([np.cos(ANGLES), np.sin(ANGLES)], -1)
TARGET, GAMMA, FLAT = 0, 10.0, 1.0
NEAR, ALIVE = 1.5, 0.01  # centres are 3.06 apart; at the start each mode has 0.125 of the samples
EDGE, CELL = 6.0, 0.25
CELLS = int(2 * EDGE / CELL)
PLOTTED = (0, 1, 2, 3, 5, 10)
# (name, share of real data, temperature of the choice)
ARMS = [("synthetic", 0.0, 1.0), ("real 0.2", 0.2, 1.0), ("real 0.5", 0.5, 1.0), ("at random", 0.0, math.inf)]


class Density(torch.nn.Module):
    """p(x) p(y | x) over cells, uniform within one."""

    def __init__(self) -> None:
        super().__init__()
        # the last token is the start, of which x is the next
        self.net = torch.nn.Sequential(
            torch.nn.Embedding(CELLS + 1, 64), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, CELLS)
        )

    def log_probabilities(self) -> torch.Tensor:
        """Of the next token, (CELLS + 1, CELLS)."""
        return self.net(torch.arange(CELLS + 1)).log_softmax(-1)

    def fit(self, points: np.ndarray, steps: int) -> None:
        """Maximum likelihood on points (n, 2), full batches."""
        x, y = np.clip((points + EDGE) / CELL, 0, CELLS - 1).astype(int).T
        counts = np.zeros((CELLS + 1, CELLS))
        np.add.at(counts, (x, y), 1)
        counts[-1] = np.bincount(x, minlength=CELLS)
        shares = torch.tensor(counts / len(points), dtype=torch.float32)
        optimiser = torch.optim.Adam(self.parameters(), lr=1e-2)
        for _ in range(steps):
            loss = -(shares * self.log_probabilities()).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    @torch.no_grad()
    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(count, 2)."""
        p = self.log_probabilities().double().exp().numpy()
        x = (rng.random((count, 1)) > p[-1].cumsum()[:-1]).sum(-1)
        y = (rng.random((count, 1)) > p[x].cumsum(-1)[:, :-1]).sum(-1)
        return CELL * (np.stack([x, y], -1) + rng.random((count, 2))) - EDGE


def main(
    seeds: str = "5", rounds: str = "10", k: str = "4", kept: str = "2000", steps: str = "300", plot: str = "",
    save: str = "no",
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    last, drawn = [], {}
    for name, real, temperature in ARMS:
        runs = [run(seed, int(rounds), int(k), int(kept), int(steps), real, temperature) for seed in range(int(seeds))]
        exact = recursion(int(rounds), int(k), real, temperature)
        for t in sorted({*PLOTTED, int(rounds)} & set(range(int(rounds) + 1))):
            points = [samples[t] for samples in runs]
            by_mode = [shares(each) for each in points]
            rows.append({
                "arm": name, "round": t, "reward": [float(reward(each).mean()) for each in points],
                "share of the rewarded mode": [float(share[TARGET]) for share in by_mode],
                "the exact recursion's": f"{exact[t]:.3f}",
                "modes alive of 8": [int((share >= ALIVE).sum()) for share in by_mode],
                "entropy": [float(curation.entropy(share / share.sum())) for share in by_mode],
            })  # fmt: skip
        of_modes = {str(mode): [float(share[mode]) for share in by_mode] for mode in range(MODES)}
        last.append({"arm": name, **of_modes, "none": [1 - float(share.sum()) for share in by_mode]})
        drawn[name] = runs[0]
    stored_numbers.show("curation-mixture", {"rounds": rows, "modes": last}, seeds=seeds)
    if plot:
        draw(plot, drawn)


def reward(points: np.ndarray) -> np.ndarray:
    """-gamma max(0, distance to the target's centre - 1): the flat disc is the maximising set; (n,)."""
    return -GAMMA * np.maximum(0, np.linalg.norm(points - CENTRES[TARGET], axis=-1) - FLAT)


def shares(points: np.ndarray) -> np.ndarray:
    """Share of the samples near each mode, (MODES,)."""
    return (np.linalg.norm(points[:, None] - CENTRES, axis=-1) < NEAR).mean(0)


def reality(count: int, rng: np.random.Generator) -> np.ndarray:
    return CENTRES[rng.integers(MODES, size=count)] + SD * rng.standard_normal((count, 2))


def run(seed: int, rounds: int, k: int, kept: int, steps: int, real: float, temperature: float) -> list[np.ndarray]:
    """4000 fresh samples of the model of rounds 0 to `rounds`, (4000, 2) each."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    density, data = Density(), reality(kept, rng)
    density.fit(data, steps)
    found = [density.sample(4000, rng)]
    for t in range(rounds):
        ours = round((1 - real) * kept)
        pool = density.sample(ours * k, rng).reshape(ours, k, 2)
        scores = reward(pool)
        chosen = [curation.choose(scores[i], 1, temperature, f"{seed} {t} {i}")[0] for i in range(ours)]
        again = data[rng.permutation(kept)[: kept - ours]]  # real data are what there is, not drawn anew
        density.fit(np.concatenate([pool[np.arange(ours), chosen], again]), steps)
        found.append(density.sample(4000, rng))
    return found


def recursion(rounds: int, k: int, real: float, temperature: float) -> list[float]:
    """The target's share in rounds 0 to `rounds` if a mode were one answer with its centre's reward."""
    start = np.full(MODES, 1 / MODES)
    path, ratio = [start], (1 - real) / real if real else math.inf
    for _ in range(rounds):
        path.append(curation.retrain(path[-1], reward(CENTRES) / temperature, k, ratio, start))
    return [float(p[TARGET]) for p in path]


def draw(path: str, drawn: dict[str, list[np.ndarray]]) -> None:
    """Samples by arm and round, of the first seed."""
    from matplotlib.figure import Figure

    names = ("synthetic", "real 0.2")
    times = [t for t in PLOTTED if t < len(drawn[names[0]])]
    figure = Figure(figsize=(2 * len(times), 4.2), layout="constrained")
    axes = figure.subplots(len(names), len(times), sharex=True, sharey=True, squeeze=False)
    for line, name in zip(axes, names, strict=True):
        for axis, t in zip(line, times, strict=True):
            axis.scatter(*drawn[name][t][:1500].T, s=1, alpha=0.4, color="0.2", rasterized=True)
            circle = np.exp(2j * np.pi * np.linspace(0, 1, 60)) * FLAT + complex(*CENTRES[TARGET])
            axis.plot(circle.real, circle.imag, color="tab:red", linewidth=0.8)
            axis.set(aspect="equal", xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[], yticks=[], title=f"round {t}")
        line[0].set_ylabel(name)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
