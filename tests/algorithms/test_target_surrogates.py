"""Proximal surrogates against what they are derived from: their gradient at the start, and where they are largest."""

import pytest
import torch

from trimtab.pipelines.algorithms.target_surrogates import surrogate

ADVANTAGES = torch.tensor([[1.3, -0.4, 0.0, 2.0]], dtype=torch.float64)
STRENGTH = 0.7


@pytest.mark.parametrize("distance", ["kl", "squared"])
def test_at_the_policy_that_sampled_they_are_the_advantages_with_their_plain_gradient(distance):
    log_ratio = torch.zeros_like(ADVANTAGES, requires_grad=True)
    held = surrogate(log_ratio, ADVANTAGES, STRENGTH, distance)
    torch.testing.assert_close(held, ADVANTAGES)
    torch.testing.assert_close(torch.autograd.grad(held.sum(), log_ratio)[0], ADVANTAGES)


def test_with_squares_each_token_goes_to_its_own_target():
    log_ratio = (STRENGTH * ADVANTAGES).requires_grad_()
    held = surrogate(log_ratio, ADVANTAGES, STRENGTH, "squared")
    torch.testing.assert_close(held, ADVANTAGES + STRENGTH * ADVANTAGES**2 / 2)
    assert torch.autograd.grad(held.sum(), log_ratio)[0].abs().max() < 1e-12


def test_with_kl_the_expectation_is_largest_where_mirror_descent_goes():
    """Over tokens drawn from pi_old it is E_pi[A] - KL(pi || pi_old) / strength, as far as pi adds up to 1."""
    old = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    logits = (old.log() + STRENGTH * ADVANTAGES).requires_grad_()
    policy = logits.softmax(-1)
    log_ratio = policy.log() - old.log()
    expected = (old * surrogate(log_ratio, ADVANTAGES, STRENGTH, "kl")).sum()
    divergence = (policy * log_ratio).sum()
    torch.testing.assert_close(expected, (policy * ADVANTAGES).sum() - divergence / STRENGTH)
    assert torch.autograd.grad(expected, logits)[0].abs().max() < 1e-12
