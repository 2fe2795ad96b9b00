"""Does momentum help iterative DPO? Bandits whose every round learns from sampled Bradley-Terry labels.

He, Yuan and Gu 2024 (https://arxiv.org/abs/2410.06293). Plain iterative DPO with b; with b divided by the momentum's
`ratio`, the control, which has the same total exponent after the last round; and APO:

    python benchmarks/apo_bandit.py                              # minutes on one core; save=yes keeps the numbers
    python benchmarks/apo_bandit.py seeds=200 rounds=3 pairs=64,256 steps=100 strength=0.5 plot=apo_bandit.svg

A seed is a bandit: normal rewards of `actions` actions, a normal reference, b = `strength`. Round t draws `pairs`
pairs of answers from pi_t, one label each (a pair that is twice the same answer teaches nothing), and minimises the
DPO loss on them, mean -log sigmoid(h_chosen - h_rejected), over the implicit reward h = b log(pihat / pi_t). All arms
of a seed share reward, reference and random numbers.

Where some answers never lost to the others the labels are separable and the minimiser is infinite. Nothing is added to
the loss: as in DPO, only the number of gradient steps bounds it, so two numbers are shown. Descent starts at h = 0 in
steps of 1/L for the loss's smoothness L = 1/2. It is in h, not in log pi, so that arms of different b differ in how
far they go and not in how well they fit. `separable` is the share of fits whose labels are, `gradient` the largest
entry left where they are not, and `exact` the gap with the true reward in place of the learned one.

The gap is the best reward minus the policy's expected one, after the last round, with standard errors over seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import numpy as np
import stored_numbers

from trimtab.pipelines.algorithms import momentum, tabular
from trimtab.pipelines.algorithms.statistics import mean_stderr

ALPHAS = (0.3, 0.6)
COMPARED = [(f"APO {alpha}", f"matched {alpha}") for alpha in ALPHAS]
RATE = 2.0  # 1/L: the Hessian is a mean over pairs of sigmoid' <= 1/4 times a matrix of norm 2


class Labels:
    """Round by round, the implicit reward that DPO learns from fresh labels; a `reward` of `tabular.rounds`."""

    def __init__(self, reward: np.ndarray, pairs: int, steps: int, seed: int):
        self.reward, self.pairs, self.steps, self.seed = reward, pairs, steps, seed
        self.separable: list[float] = []  # per round, the share of seeds
        self.left = 0.0  # largest gradient where not separable

    def __call__(self, t: int, log_policy: np.ndarray) -> np.ndarray:
        wins = sample(np.random.default_rng((self.seed, self.pairs, t)), log_policy, self.reward, self.pairs)
        implicit, gradient = fit(wins, self.steps)
        infinite = separable(wins)
        self.separable.append(infinite.mean())
        self.left = max(self.left, np.abs(gradient[~infinite]).max(initial=0.0))
        return implicit


def sample(rng: np.random.Generator, log_policy: np.ndarray, reward: np.ndarray, pairs: int) -> np.ndarray:
    """wins[s, y, y'], (S, n, n): how often y was preferred to y' among `pairs` draws y, y' ~ pi_t of each seed.

    P(y > y') = sigmoid(r(y) - r(y')). The same `rng` gives the same uniform numbers to every policy.
    """
    seeds, actions = reward.shape
    draws, coins = rng.random((seeds, pairs, 2)), rng.random((seeds, pairs))
    cumulative = np.exp(log_policy).cumsum(-1)[:, None, None, :-1]
    first, second = np.moveaxis((draws[..., None] > cumulative).sum(-1), -1, 0)
    row = np.arange(seeds)[:, None]
    preferred = coins < 1 / (1 + np.exp(reward[row, second] - reward[row, first]))
    chosen, rejected = np.where(preferred, first, second), np.where(preferred, second, first)
    flat = (row * actions + chosen) * actions + rejected
    return np.bincount(flat.ravel(), minlength=seeds * actions**2).reshape(seeds, actions, actions)


def fit(wins: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The implicit reward (S, n) after `steps` of gradient descent on the DPO loss, and the gradient (S, n) there."""
    seeds, actions, _ = wins.shape
    above, below = np.triu_indices(actions, 1)
    difference = np.zeros((len(above), actions))
    difference[np.arange(len(above)), above], difference[np.arange(len(above)), below] = 1.0, -1.0
    total = wins.sum((1, 2))[:, None]
    won, met = wins[:, above, below] / total, (wins + wins.swapaxes(1, 2))[:, above, below] / total
    implicit, gradient = np.zeros((seeds, actions)), np.zeros((seeds, actions))
    for _ in range(steps):
        implicit -= RATE * gradient
        gradient = (met / (1 + np.exp(-implicit @ difference.T)) - won) @ difference
    return implicit, gradient


def separable(wins: np.ndarray) -> np.ndarray:
    """(S,): whether the minimiser is infinite: some y beat a y' from which no chain of wins leads back to y.

    Ford 1957: it is finite where the graph of wins is strongly connected, here each part of it.
    """
    reach = wins > 0
    for _ in range(wins.shape[-1].bit_length()):
        reach = reach | (reach[:, :, :, None] & reach[:, None, :, :]).any(2)
    return ((wins > 0) & ~reach.swapaxes(1, 2)).any((1, 2))


def main(
    actions: str = "8", rounds: str = "3,5", pairs: str = "64,256,1024", steps: str = "200,2000", seeds: str = "2000",
    strength: str = "1.0", seed: str = "0", plot: str = "", save: str = "no",
) -> None:  # fmt: skip
    rng = np.random.default_rng(int(seed))
    reward = rng.standard_normal((int(seeds), int(actions)))
    log_reference = tabular.normalise(rng.standard_normal(reward.shape))
    panels, arms, differences = {}, [], []
    for count, budget, size in product(*(map(int, text.split(",")) for text in (rounds, steps, pairs))):
        cell = {"rounds": count, "pairs": size, "steps": budget}
        gaps, told = compare(log_reference, partial(Labels, reward, size, budget, int(seed)), float(strength), count)
        panels[f"{count} rounds, {size} pairs, {budget} steps"] = gaps
        arms += [cell | row for row in told]
        ends = {name: values[-1] for name, values in gaps.items()}
        told_ends = {f"gap, {name}": f"{values.mean():.4f}" for name, values in ends.items()}
        compared = {f"{ours} - {control}": list(map(float, ends[ours] - ends[control])) for ours, control in COMPARED}
        differences.append(cell | told_ends | compared)
    tables = {"sampled": differences, "arms": arms}
    stored_numbers.show("momentum-on-a-bandit", tables, seeds=f"{seeds} bandits of {actions} actions, seed {seed}")
    if plot:
        draw(plot, panels)


def compare(
    log_reference: np.ndarray, learner: Callable[[], Labels], strength: float, count: int
) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    """The arms' gaps after each of `count` rounds, (count + 1, S), and a row of each arm at its end."""
    arms = {"DPO b": (strength, 0.0)}
    for alpha in ALPHAS:
        arms |= {f"matched {alpha}": (strength / momentum.ratio(alpha, count), 0.0), f"APO {alpha}": (strength, alpha)}
    gaps, rows = {}, []
    for name, (b, alpha) in arms.items():
        labels = learner()
        reward = labels.reward
        policies = tabular.rounds(log_reference, labels, b, alpha, count)
        exact = tabular.rounds(log_reference, lambda *_, reward=reward: reward, b, alpha, count)[-1]
        gaps[name] = tabular.gap(policies, reward)
        rows.append({
            "arm": name, "gap": list(map(float, gaps[name][-1])),
            "with the true reward": f"{tabular.gap(exact, reward).mean():.4f}",
            "KL to the start": list(map(float, tabular.kl(policies[-1], log_reference))),
            "separable": f"{np.mean(labels.separable):.0%}", "largest gradient left": f"{labels.left:.0e}",
        })  # fmt: skip
    return gaps, rows


def draw(path: str, panels: dict[str, dict[str, np.ndarray]]) -> None:
    """A panel per setting: the mean gap after each round, with standard errors."""
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.7 * rows), layout="constrained")
    for place, (title, gaps) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        for name, values in gaps.items():
            means, errors = zip(*map(mean_stderr, values), strict=True)
            axes.errorbar(range(len(means)), means, errors, capsize=2, linewidth=1,
                          linestyle="-" if name.startswith("APO") else "--", label=name)  # fmt: skip
        axes.set(title=title, xlabel="round", ylabel="gap", yscale="log")
        axes.legend(frameon=False, fontsize=7, loc="lower left")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
