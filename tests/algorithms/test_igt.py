"""Look-ahead momentum against exact gradients of a quadratic, and going on from a state that was saved anywhere."""

import copy

import pytest
import torch

from trimtab.pipelines.algorithms.optimizers.igt import Igt


def quadratic(seed=0):
    """Half x' H x - b x in 8 dimensions: its matrix, its vector, and a start."""
    drawn = torch.Generator().manual_seed(seed)
    root, b, start = (torch.randn(shape, generator=drawn, dtype=torch.float64) for shape in ((8, 8), (8,), (8,)))
    return root @ root.T, b, 3 * start


def walk(optimizer, value, steps):
    """Steps along the exact gradient, taken where the weights are."""
    hessian, b, _ = quadratic()
    for _ in range(steps):
        optimizer.train()
        value.grad = (hessian @ value - b).detach()
        optimizer.step()


@pytest.mark.parametrize("eta", [0.05, 0.1, 0.5])
def test_the_moment_is_the_gradient_where_plain_momentum_is_of_the_past(eta):
    """On a quadratic d_t is the gradient at theta_t to rounding, and without a look ahead it is off by tens."""
    hessian, b, start = quadratic()
    errors = []
    for look_ahead in (True, False):
        value = torch.nn.Parameter(start.clone())
        optimizer = Igt([value], lr=0.1, eta=eta, look_ahead=look_ahead)
        walk(optimizer, value, 50)
        state, moved = optimizer.state[value], optimizer.param_groups[0]["moved"]
        before = state["iterate"] + moved * state["moment"]  # theta_t, from which the last step was taken
        errors.append((state["moment"] - (hessian @ before - b)).abs().max().item())
    assert errors[0] < 1e-12
    assert errors[1] > 0.1


def test_every_step_has_the_length_of_the_rate_over_all_weights_together():
    drawn = torch.Generator().manual_seed(0)
    values = [torch.nn.Parameter(torch.randn(shape, generator=drawn)) for shape in ((3, 4), (5,))]
    groups = [{"params": values[:1]}, {"params": values[1:], "lr": 0.2}]
    optimizer = Igt(groups, lr=0.2, eta=0.3)
    before = [value.detach().clone() for value in values]
    for _ in range(4):
        optimizer.train()
        for value in values:
            value.grad = torch.randn(value.shape, generator=drawn)
        optimizer.step()
        optimizer.eval()
        moves = torch.cat([(a - b).flatten() for a, b in zip(values, before, strict=True)])
        assert moves.norm().item() == pytest.approx(0.2, rel=1e-5)
        before = [value.detach().clone() for value in values]


def test_with_eta_1_it_is_the_normalised_gradient():
    hessian, b, start = quadratic()
    value, plain = torch.nn.Parameter(start.clone()), start.clone()
    walk(Igt([value], lr=0.1, eta=1.0, weight_decay=0.01), value, 9)
    for _ in range(9):
        gradient = hessian @ plain - b
        plain = plain * (1 - 0.1 * 0.01) - 0.1 * gradient / gradient.norm()
    assert torch.allclose(value, plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("evaluated", [False, True])
def test_it_goes_on_to_the_bit_from_a_state_saved_before_or_after_an_evaluation(evaluated):
    _, _, start = quadratic()
    whole = torch.nn.Parameter(start.clone())
    optimizer = Igt([whole], lr=0.1, eta=0.2)
    walk(optimizer, whole, 5)
    if evaluated:
        optimizer.eval()
    weights, state = whole.detach().clone(), copy.deepcopy(optimizer.state_dict())
    walk(optimizer, whole, 5)
    again = torch.nn.Parameter(weights)
    resumed = Igt([again], lr=0.1, eta=0.2)
    resumed.load_state_dict(state)
    walk(resumed, again, 5)
    assert torch.equal(again, whole)
    assert not torch.equal(whole, optimizer.state[whole]["iterate"]), "weights in training look ahead"
    optimizer.eval()
    assert torch.equal(whole, optimizer.state[whole]["iterate"])


def test_gradients_of_zero_and_parameters_without_one_stay():
    values = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = Igt(values, lr=0.1)
    values[0].grad = torch.zeros(2)
    optimizer.step()
    assert all(torch.equal(value, torch.ones(2)) for value in values)


@pytest.mark.parametrize("eta", [0.0, 1.1, -0.5])
def test_a_weight_that_is_no_share_is_refused(eta):
    with pytest.raises(ValueError, match="eta must be above 0 and at most 1"):
        Igt([torch.nn.Parameter(torch.ones(1))], eta=eta)
