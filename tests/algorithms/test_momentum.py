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


def rounds_of(rewards, betas, momenta, start):
    """The last trained policy's log-probabilities, up to a constant, of exact rounds."""
    hat = theta = start
    for reward, b, a in zip(rewards, betas, momenta, strict=True):
        last, hat = hat, theta + reward / b
        theta = hat + a * (hat - last)
    return hat


@pytest.mark.parametrize("seed", range(20))
def test_the_matched_control_ends_where_momentum_does(seed):
    """For any betas, any momenta and any rewards of the rounds: also the published betas, which span a hundredfold."""
    draw = torch.Generator().manual_seed(seed)
    count = 1 + seed % 7
    rewards, start = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((count, 6), (6,)))
    momenta = (0.95 * torch.rand(count, generator=draw, dtype=torch.float64)).tolist()
    betas = (
        [0.01, 0.1, 1.0] if count == 3 else torch.rand(count, generator=draw, dtype=torch.float64).add(0.01).tolist()
    )
    ours = rounds_of(rewards, betas, momenta, start)
    control = rounds_of(rewards, momentum.matched(betas, momenta), [0.0] * count, start)
    torch.testing.assert_close(control, ours, rtol=1e-12, atol=1e-12)
    if len({*momenta}) > 1:
        by_ratio = [b / momentum.ratio(momenta[0], count) for b in betas]
        assert not torch.allclose(rounds_of(rewards, by_ratio, [0.0] * count, start), ours, atol=1e-3)


def test_one_momentum_is_a_list_of_it():
    assert momentum.coefficients([0.3, 0.3, 0.3], 3) == momentum.coefficients(0.3, 3) == pytest.approx([1.39, 1.3, 1])


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
