"""Carried momentum against exact gradients, and its Hessian-vector products against differences and enumeration."""

import numpy as np
import pytest
import torch

from trimtab.pipelines.algorithms.harpg import Harpg, hessian_vector

DRAWN = torch.Generator().manual_seed(0)
ROOT, LINEAR, START = (torch.randn(shape, generator=DRAWN, dtype=torch.float64) for shape in ((8, 8), (8,), (8,)))
ANSWERS = 3  # of each of two tokens
REWARDS = torch.randn(ANSWERS, ANSWERS, generator=DRAWN, dtype=torch.float64)


def quadratic(value):
    return (ROOT @ value).square().sum() / 2 - LINEAR @ value


def of_tokens(weights):
    """log pi of both tokens for all nine answers; the second token's depends on the first: 12 weights."""
    first = weights[:ANSWERS].log_softmax(0)[:, None].expand(-1, ANSWERS)
    return torch.stack([first, weights[ANSWERS:].view(ANSWERS, ANSWERS).log_softmax(1)])


def expected(weights):
    """Minus the exact expected reward."""
    return -(of_tokens(weights).sum(0).exp() * REWARDS).sum()


def policy(seed):
    return torch.randn(12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(loss, value):
    value = value.detach().requires_grad_()
    return torch.autograd.grad(loss(value), value)[0]


def product(loss, value, direction):
    value = value.detach().requires_grad_()
    return hessian_vector(loss(value), [value], [direction])[0]


@pytest.mark.parametrize(("loss", "value"), [(quadratic, START), (expected, policy(1))])
def test_a_product_is_the_central_difference_of_gradients(loss, value):
    direction = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ends = [gradient(loss, value + shift * direction) for shift in (1e-5, -1e-5)]
    torch.testing.assert_close(product(loss, value, direction), (ends[0] - ends[1]) / 2e-5, rtol=0, atol=1e-8)


def of_ratio(levels, weights):
    """The loss of a policy that has sampled itself, for every answer: ratios of whole answers or of each token."""
    logps = of_tokens(weights)
    ratios = logps - logps.detach()
    return -REWARDS * (ratios.sum(0).exp() if levels == "answers" else ratios.exp().sum(0))


def test_ratios_of_whole_answers_have_the_hessian_of_the_reward_and_those_of_tokens_only_its_gradient():
    """In expectation over all answers: why no loss of GRPO's, whose ratios are of tokens, can give the product."""
    weights, direction = policy(1), policy(2)
    sampled = of_tokens(weights).sum(0).exp()  # held still, as what has been sampled is

    def mean(levels):
        return lambda value: (sampled * of_ratio(levels, value)).sum()

    for levels in ("answers", "tokens"):
        torch.testing.assert_close(gradient(mean(levels), weights), gradient(expected, weights), rtol=0, atol=1e-12)
    exact = product(expected, weights, direction)
    torch.testing.assert_close(product(mean("answers"), weights, direction), exact, rtol=0, atol=1e-12)
    assert (product(mean("tokens"), weights, direction) - exact).norm() > 0.3 * exact.norm()


def test_the_mean_change_over_the_way_is_the_difference_of_the_gradients_at_its_ends():
    """On a policy, which is no quadratic: by twenty points of Gauss and Legendre's rule in the place of the draw."""
    before, after = policy(3), policy(4)
    points, weights = (torch.tensor(each) for each in np.polynomial.legendre.leggauss(20))
    changes = [product(expected, before + (1 + point) / 2 * (after - before), after - before) for point in points]
    mean = sum(weight / 2 * change for weight, change in zip(weights, changes, strict=True))
    difference = gradient(expected, after) - gradient(expected, before)
    torch.testing.assert_close(mean, difference, rtol=0, atol=1e-9)
    alone = product(expected, after, after - before)  # at the end alone, as a look ahead has it
    assert (alone - difference).norm() > 0.1 * difference.norm()


def test_the_moment_is_the_gradient_where_plain_momentum_is_of_the_past():
    """Means of all gradients until now, eta = 1 / t, on a quadratic."""
    errors = []
    for carried in (True, False):
        value = torch.nn.Parameter(3 * START)
        optimizer = Harpg([value], lr=0.1, carried=carried)
        for number in range(1, 51):
            optimizer.param_groups[0]["eta"] = 1 / number
            here = value.detach().clone()
            optimizer.step(lambda value=value: quadratic(value))
        errors.append((optimizer.state[value]["moment"] - gradient(quadratic, here)).abs().max().item())
    assert errors[0] < 1e-12
    assert errors[1] > 1


def test_a_step_has_the_length_of_the_rate_and_the_closure_samples_where_it_should():
    """At the weights, and then between them and those before; without the correction at the weights alone."""
    value = torch.nn.Parameter(policy(1))
    seen = []

    def closure():
        seen.append(value.detach().clone())
        return expected(value)

    optimizer = Harpg([value], lr=0.2, eta=0.3)
    optimizer.step(closure)
    optimizer.step(closure)
    first, second, between = seen
    assert [(b - a).norm().item() for a, b in ((first, second), (second, value.detach()))] == pytest.approx([0.2, 0.2])
    assert (second - between).norm() + (between - first).norm() == pytest.approx(0.2)
    seen.clear()
    plain = Harpg([value], lr=0.2, eta=0.3, carried=False)
    plain.step(closure)
    plain.step(closure)
    assert len(seen) == 2


def test_a_weight_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match="eta must be above 0 and at most 1"):
        Harpg([torch.nn.Parameter(torch.ones(1))], eta=0.0)


@pytest.mark.parametrize("eta", [0, -0.1, 1.5])
def test_a_weight_that_is_none_is_refused(eta):
    with pytest.raises(ValueError, match=f"eta must be above 0 and at most 1, got {eta}"):
        Harpg([torch.nn.Parameter(torch.zeros(1))], eta=eta)
