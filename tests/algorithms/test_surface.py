"""Where a metric is largest over several rewards: the fit against known surfaces."""

import numpy as np
import pytest

from trimtab.pipelines.algorithms import surface

PEAK = np.array([1.2, -3.0])


def seen(count=120, seed=0, noise=0.02):
    rng = np.random.default_rng(seed)
    points = rng.uniform([0, -8], [2, 2], size=(count, 2))
    values = 0.7 - np.square((points - PEAK) / [2, 10]).sum(1) + noise * rng.standard_normal(count)
    return points, values


@pytest.mark.parametrize(("kind", "degree"), [("gaussian_process", 0), ("polynomial", 3)])
def test_the_peak_of_a_known_surface_is_found_with_its_error(kind, degree, monkeypatch):
    monkeypatch.setattr(surface, "GRID", 30)  # of 900 points: the time goes with the third power of their number
    off = []
    for seed in range(4):
        found = surface.fit(*seen(seed=seed), kind=kind, degree=degree)
        assert found.value == pytest.approx(0.7, abs=0.03)
        assert found.explained > 0.9
        assert (found.best_stderr > 0).all()
        off.append(np.abs(found.best - PEAK) / found.best_stderr)
        assert (np.abs(found.best - PEAK) < [0.3, 1.5]).all()
    assert np.mean(off) < 3


def test_one_reward_and_three_are_fitted_too():
    points, _ = seen()
    assert surface.fit(points[:, :1], -np.square(points[:, 0] - 1.2)).best[0] == pytest.approx(1.2, abs=0.1)
    rng = np.random.default_rng(0)
    three = rng.random((80, 3))
    found = surface.fit(three, -np.square(three - 0.5).sum(1))
    assert np.abs(found.best - 0.5).max() < 0.15


def test_where_nothing_was_seen_the_surface_does_not_count():
    """Points along a curve, on which the metric rises to its end: the proposal is on the curve, not beyond it."""
    along = np.linspace(0, 1, 60)
    points = np.stack([along, along**2], 1)
    found = surface.fit(points, along + 0.0)
    distance = np.sqrt(np.square(points - found.best).sum(1)).min()
    assert distance < 0.25
    assert found.best[0] > 0.6


def test_too_little_is_said():
    with pytest.raises(ValueError, match="5 points are too few for a surface over 2 rewards"):
        surface.fit(np.random.default_rng(0).random((5, 2)), np.zeros(5))
    with pytest.raises(ValueError, match="is the same at all points"):
        surface.fit(np.ones((9, 1)), np.zeros(9))


def test_two_rewards_have_a_lattice_and_more_have_their_points_too():
    unit = np.random.default_rng(0).random((9, 2))
    assert len(surface._grid(unit, 0)) == surface.GRID**2
    assert len(np.unique(surface._grid(unit, 0)[:, 0])) == surface.GRID
    assert len(surface._grid(unit[:, :1], 0)) == 10 * surface.GRID
    three = np.random.default_rng(0).random((9, 3))
    np.testing.assert_array_equal(surface._grid(three, 0)[-9:], three)


def test_the_surface_counts_where_the_density_is_a_twentieth_of_its_largest(monkeypatch):
    monkeypatch.setattr(surface, "GRID", 20)
    points = np.random.default_rng(0).normal(size=(60, 2))
    values = -np.square(points).sum(1)
    usual, same, less = (
        surface.fit(points, values, kind="polynomial", degree=2, **given)
        for given in ({}, {"density": 0.05}, {"density": 0.1})
    )
    np.testing.assert_array_equal(usual.grid, same.grid)
    assert len(less.grid) < len(usual.grid)
