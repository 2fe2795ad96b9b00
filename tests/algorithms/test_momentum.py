"""Momentum's coefficients in closed form, and what they say of rounds on a table."""

import pytest
import torch

from trimtab.pipelines.algorithms import momentum


@pytest.mark.parametrize(
    ("a", "ratios"),
    [
        (0.0, {1: 1.0, 7: 1.0}),
        (0.3, {1: 1.00, 2: 1.15, 3: 1.23, 5: 1.31, 10: 1.37}),
        (0.6, {1: 1.00, 2: 1.30, 3: 1.52, 5: 1.81, 10: 2.13}),
        (0.9, {1: 1.00, 2: 1.45, 3: 1.87, 5: 2.63, 10: 4.14}),
    ],
)
def test_the_control_of_a_number_of_rounds(a, ratios):
    assert {rounds: round(momentum.ratio(a, rounds), 2) for rounds in ratios} == ratios


@pytest.mark.parametrize("a", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("rounds", [1, 3, 8])
def test_coefficients_are_those_of_the_paper(a, rounds):
    t = rounds - 1
    assert momentum.coefficients(a, rounds) == pytest.approx([(1 - a ** (t + 1 - i)) / (1 - a) for i in range(t + 1)])
    closed = (t + 1) / (1 - a) - a / (1 - a) ** 2 + a ** (t + 2) / (1 - a) ** 2
    assert momentum.exponent(a, rounds) == pytest.approx(closed)


def test_coefficients_at_one_are_the_limit():
    assert momentum.coefficients(1.0, 4) == [4, 3, 2, 1]
    assert momentum.coefficients(1 - 1e-9, 4) == pytest.approx([4, 3, 2, 1])


def test_coefficients_weigh_the_rewards_of_tabular_rounds():
    """Theorem 4.1 by iterating it: a reward per answer and round, exact rounds, the policy normalised at the end."""
    a, b, rounds = 0.3, 0.5, 4
    draw = torch.Generator().manual_seed(3)
    rewards = torch.randn(rounds, 6, generator=draw, dtype=torch.float64)
    start = hat = theta = torch.randn(6, generator=draw, dtype=torch.float64)
    for reward in rewards:
        last, hat = hat, theta + reward / b
        theta = hat + a * (hat - last)
    weights = torch.tensor(momentum.coefficients(a, rounds), dtype=torch.float64)
    torch.testing.assert_close(hat, start + weights @ rewards / b, rtol=1e-12, atol=1e-12)
