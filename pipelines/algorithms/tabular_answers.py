"""Policies over answers of a few tokens, by enumeration: where a gradient of the KL leads, exactly or by samples.

A policy is its logits (..., places, V), float64: over the next of V tokens, at every place that answers come by. Token
0 ends an answer. Leading axes are independent problems. Levine 2018 (https://arxiv.org/abs/1805.00909) has the
recursion.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tree:
    """All answers M of at most T tokens: the place and the token of each step (M, T), and whether there is one."""

    places: Tensor
    tokens: Tensor
    mask: Tensor
    vocabulary: int

    @property
    def size(self) -> int:
        """How many places there are."""
        return int(self.places.max()) + 1


def tree(vocabulary: int, length: int) -> Tree:
    """Of `vocabulary` tokens, in answers of at most `length`."""
    numbers: dict[tuple[int, ...], int] = {}
    answers: list[tuple[int, ...]] = []
    open_prefixes: list[tuple[int, ...]] = [()]
    while open_prefixes:
        prefix = open_prefixes.pop(0)
        numbers[prefix] = len(numbers)
        for token in range(vocabulary):
            longer = (*prefix, token)
            (answers if token == 0 or len(longer) == length else open_prefixes).append(longer)
    places, tokens, mask = (torch.zeros(len(answers), length, dtype=torch.long) for _ in range(3))
    for row, answer in enumerate(answers):
        for step, token in enumerate(answer):
            places[row, step], tokens[row, step], mask[row, step] = numbers[answer[:step]], token, 1
    return Tree(places, tokens, mask, vocabulary)


def logprobs(logits: Tensor, answers: Tree) -> Tensor:
    """log pi(y_t | y_<t) of every step of every answer, (..., M, T), 0 behind the end."""
    return logits.log_softmax(-1)[..., answers.places, answers.tokens] * answers.mask


def optimum(log_start: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log pi_0 exp(r / beta) / Z, (..., M), which maximises E[r] - beta KL(pi || pi_0) over whole answers."""
    return (log_start + rewards / beta).log_softmax(-1)


def objective(log_policy: Tensor, log_start: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """E[r] - beta KL(pi || pi_0), (...), in units of the reward; policies are log-probabilities (..., M)."""
    return (log_policy.exp() * (rewards - beta * (log_policy - log_start))).sum(-1)


def learned(
    start: Tensor, rewards: Tensor, beta: float, answers: Tree, penalty: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    """The policy's logits after natural policy gradients with exact expectations, of rate 1 / beta.

    `penalty` makes the KL's part of every token's advantage, in nats, from log pi - log pi_0 (..., M, T):
    `advantages.still_to_come` for that of whole answers, minus itself for a loss in which a token has its own alone.
    With either, every step makes one more of the T steps of an answer exact.
    """
    logits, reference = start.log_softmax(-1), logprobs(start, answers)
    index = (answers.places * answers.vocabulary + answers.tokens).flatten()
    for _ in range(steps):
        steps_logps = logprobs(logits, answers)
        weights = (steps_logps.sum(-1, keepdim=True).exp() * answers.mask).flatten(-2)
        gains = (rewards.unsqueeze(-1) + beta * penalty(steps_logps - reference)).flatten(-2)
        nothing = torch.zeros_like(logits).flatten(-2)
        sums, total = (nothing.index_add(-1, index, values) for values in (weights * gains, weights))
        advantages = (sums / total).reshape(logits.shape)
        logits = (logits + advantages / beta).log_softmax(-1)
    return logits
