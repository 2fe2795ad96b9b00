"""Does momentum between rounds help where it could: neural policies whose every round overfits few true labels?

    python benchmarks/momentum_worlds.py            # a quarter of an hour on one core; save=yes keeps the numbers
    python benchmarks/momentum_worlds.py worlds=100 tuned_on=50 pairs=64 epochs=4,40 rounds=5 beta=0.1 rates=0.003,0.01

A world is a true reward, a network of `FEATURES` numbers of a prompt's answer, and a policy, another one whose outputs
are logits of ANSWERS answers. Round t draws two answers of `pairs` training prompts from theta_t, takes a
Bradley-Terry label of the true reward for each, and trains the policy by DPO with AdamW from theta_t, which is also
the reference, for `epochs` epochs in batches of 16. All worlds are trained at once, as one batch of networks. Arms,
with equal draws and labels wherever policies are equal:

    iterative      no momentum
    matched a      beta_i / c_i: by Theorem 4.1 (https://arxiv.org/abs/2410.06293) as much as momentum a
    rate a         learning rate of round i times 1 + a, from the second on
    early          each round ends at the epoch that is best on a fifth of its pairs, which are held out
    momentum a     theta_{t+1} = hat_{t+1} + a (hat_{t+1} - hat_t), in weights
    momentum, early

Every arm has the learning rate that is best for it on `tuned_on` other worlds. Told are the true reward of the last
trained policy on prompts that no round has seen, 0 for the mean of their answers and 1 for the best one, with standard
errors over worlds; the KL to the start; and paired differences.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
import torch
from torch.nn import functional

from trimtab.pipelines.algorithms import momentum

PROMPTS, UNSEEN, ANSWERS, FEATURES, WIDTH = 400, 200, 16, 16, 32
BATCH, HELD_OUT = 16, 0.2
ALPHAS = (0.3, 0.6)
Weights = list[torch.Tensor]  # (worlds, ...) each


@dataclass(frozen=True)
class Arm:
    """How rounds follow each other."""

    name: str
    momentum: float = 0.0
    matches: float = 0.0
    faster: float = 0.0
    early: bool = False


ARMS = (
    Arm("iterative"),
    *(Arm(f"matched {a}", matches=a) for a in ALPHAS),
    *(Arm(f"rate {a}", faster=a) for a in ALPHAS),
    Arm("early", early=True),
    *(Arm(f"momentum {a}", momentum=a) for a in ALPHAS),
    *(Arm(f"momentum {a}, early", momentum=a, early=True) for a in ALPHAS),
)
COMPARED = (
    *((f"momentum {a}", control) for a in ALPHAS for control in ("iterative", f"matched {a}", f"rate {a}", "early")),
    *((f"momentum {a}, early", "early") for a in ALPHAS),
)


@dataclass
class Setting:
    """One cell of the study."""

    worlds: int
    pairs: int
    epochs: int
    rounds: int
    beta: float
    rates: tuple[float, ...]
    tuned_on: int
    seed: int


class Worlds:
    """Features of all answers (worlds, prompts, answers, features) and their true rewards, standardised by world."""

    def __init__(self, count: int, seed: int):
        self.generator = torch.Generator().manual_seed(seed)
        self.features = self.normal(count, PROMPTS + UNSEEN, ANSWERS, FEATURES)
        reward = outputs(self.network(count, spread=2.0), self.features)
        self.reward = (reward - reward.mean((1, 2), keepdim=True)) / reward.std((1, 2), keepdim=True)
        self.start = self.network(count)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.generator)

    def network(self, count: int, spread: float = 1.0) -> Weights:
        inside = self.normal(count, FEATURES, WIDTH) * spread / math.sqrt(FEATURES)
        return [inside, self.normal(count, 1, WIDTH) * spread, self.normal(count, WIDTH, 1) / math.sqrt(WIDTH)]

    def value(self, weights: Weights) -> torch.Tensor:
        """(worlds,): the policy's true reward on unseen prompts, 0 for the mean of answers and 1 for the best."""
        policy, reward = log_policy(weights, self.features[:, PROMPTS:]).exp(), self.reward[:, PROMPTS:]
        mean, best = reward.mean(-1), reward.max(-1).values
        return (((policy * reward).sum(-1) - mean) / (best - mean)).mean(1)

    def kl(self, weights: Weights) -> torch.Tensor:
        """(worlds,): KL(policy || start) in nats of an answer, on unseen prompts."""
        ours, start = (log_policy(each, self.features[:, PROMPTS:]) for each in (weights, self.start))
        return (ours.exp() * (ours - start)).sum(-1).mean(1)


def outputs(weights: Weights, features: torch.Tensor) -> torch.Tensor:
    """(worlds, prompts, answers): one number of each answer."""
    inside, bias, outside = weights
    worlds, prompts, answers, _ = features.shape
    hidden = torch.tanh(features.reshape(worlds, prompts * answers, -1) @ inside + bias)
    return (hidden @ outside).reshape(worlds, prompts, answers)


def log_policy(weights: Weights, features: torch.Tensor) -> torch.Tensor:
    return outputs(weights, features).log_softmax(-1)


@dataclass
class Pairs:
    """Features (worlds, pairs, 2, features) of a chosen and a rejected answer, and their reference's log-ratio."""

    features: torch.Tensor
    reference: torch.Tensor

    def loss(self, weights: Weights, rows: slice, beta: float) -> torch.Tensor:
        """(worlds,): the DPO loss; the partition function of a prompt cancels in the difference."""
        scores = outputs(weights, self.features[:, rows])
        margin = scores[..., 0] - scores[..., 1] - self.reference[:, rows]
        return -functional.logsigmoid(beta * margin).mean(1)


def drawn(worlds: Worlds, weights: Weights, setting: Setting, number: int) -> Pairs:
    """Two answers of each of `pairs` prompts, labelled; the same uniform numbers for every policy."""
    generator = torch.Generator().manual_seed(setting.seed * 1000 + number)
    count = worlds.reward.shape[0]
    prompts = torch.rand(count, PROMPTS, generator=generator).argsort(1)[:, : setting.pairs]
    features = worlds.features[:, :PROMPTS].gather(1, _spread(prompts, worlds.features))
    reward = worlds.reward[:, :PROMPTS].gather(1, _spread(prompts, worlds.reward))
    policy = log_policy(weights, features).exp()
    uniform = torch.rand(count, setting.pairs, 2, generator=generator)
    answers = (uniform[..., None] > policy.cumsum(-1)[:, :, None, :-1]).sum(-1)  # (worlds, pairs, 2)
    rewards = reward.gather(2, answers)
    coins = torch.rand(count, setting.pairs, generator=generator)
    swapped = coins > torch.sigmoid(rewards[..., 0] - rewards[..., 1])
    answers = torch.where(swapped[..., None], answers.flip(-1), answers)
    of_pair = features.gather(2, answers[..., None].expand(-1, -1, -1, FEATURES))
    scores = outputs(weights, of_pair)
    return Pairs(of_pair, scores[..., 0] - scores[..., 1])


def _spread(index: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """An index of prompts for `gather` in a tensor with more dimensions."""
    return index.reshape(*index.shape, *[1] * (like.dim() - 2)).expand(-1, -1, *like.shape[2:])


def trained(weights: Weights, pairs: Pairs, setting: Setting, beta: float, rate: float, *, early: bool) -> Weights:
    """The weights after a round; with `early`, of each world those of its best epoch on pairs held out."""
    learning = setting.pairs - round(HELD_OUT * setting.pairs) if early else setting.pairs
    held_out = slice(learning, setting.pairs)
    variables = [tensor.clone().requires_grad_() for tensor in weights]
    optimizer = torch.optim.AdamW(variables, lr=rate, weight_decay=0.0)
    best, lowest = [tensor.clone() for tensor in weights], torch.full((weights[0].shape[0],), math.inf)
    for _ in range(setting.epochs):
        for begin in range(0, learning, BATCH):
            optimizer.zero_grad()
            pairs.loss(variables, slice(begin, min(begin + BATCH, learning)), beta).sum().backward()
            optimizer.step()
        if early:
            with torch.no_grad():
                loss = pairs.loss(variables, held_out, beta)
                better = loss < lowest
                lowest = torch.where(better, loss, lowest)
                best = [torch.where(better[:, None, None], new, old) for new, old in zip(variables, best, strict=True)]
    return best if early else [variable.detach() for variable in variables]


def last(worlds: Worlds, arm: Arm, setting: Setting, first_rate: float) -> Weights:
    """The policy of an arm's last round, which is not extrapolated."""
    betas = [setting.beta] * setting.rounds
    betas = momentum.matched(betas, arm.matches) if arm.matches else betas
    begin = hat = worlds.start
    for number in range(setting.rounds):
        with torch.no_grad():
            pairs = drawn(worlds, begin, setting, number)
        rate = first_rate * (1 + arm.faster if number else 1)
        before, hat = hat, trained(begin, pairs, setting, betas[number], rate, early=arm.early)
        begin = [new + arm.momentum * (new - old) for new, old in zip(hat, before, strict=True)]
    return hat


Rows = list[dict[str, Any]]


def study(setting: Setting) -> tuple[Rows, Rows]:
    """A row of each arm of one cell, and one of each paired difference."""
    worlds, others = Worlds(setting.worlds, setting.seed), Worlds(setting.tuned_on, setting.seed + 1)
    cell = {"rounds": setting.rounds, "epochs": setting.epochs}
    start = worlds.value(worlds.start).detach().tolist()
    values, rows = {}, [{**cell, "arm": "the start", "true reward": start, "KL to the start": "", "rate": ""}]
    for arm in ARMS:
        by_rate = {rate: others.value(last(others, arm, setting, rate)).mean().item() for rate in setting.rates}
        rate = max(by_rate, key=by_rate.__getitem__)
        weights = last(worlds, arm, setting, rate)
        with torch.no_grad():
            values[arm.name], far = worlds.value(weights), worlds.kl(weights).tolist()
        reached = values[arm.name].tolist()
        rows.append({**cell, "arm": arm.name, "true reward": reached, "KL to the start": far, "rate": str(rate)})
    pairs = [{**cell, "arm": ours, "control": control, "arm - control": (values[ours] - values[control]).tolist()}
             for ours, control in COMPARED]  # fmt: skip
    return rows, pairs


def main(
    worlds: str = "100", tuned_on: str = "50", pairs: str = "64", epochs: str = "4,40", rounds: str = "5",
    beta: str = "0.1", rates: str = "0.001,0.003,0.01,0.03", seed: str = "0", save: str = "no",
) -> None:  # fmt: skip
    steps = tuple(map(float, rates.split(",")))
    arms: Rows = []
    differences: Rows = []
    for count, size, long in product(*(map(int, text.split(",")) for text in (rounds, pairs, epochs))):
        rows, compared = study(Setting(int(worlds), size, long, count, float(beta), steps, int(tuned_on), int(seed)))
        arms, differences = arms + rows, differences + compared
    tables = {"arms": arms, "differences": differences}
    named = f"{worlds} worlds, rates tuned on {tuned_on} others"
    stored_numbers.show("momentum-in-small-worlds", tables, seeds=named)


if __name__ == "__main__":
    main(**dict(word.split("=", 1) for word in sys.argv[1:]))
