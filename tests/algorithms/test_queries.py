"""What is asked: closed forms of the posterior, the bound on the number of questions, the choice of two answers."""

import math

import numpy as np
import pytest

from trimtab.pipelines.algorithms import queries
from trimtab.pipelines.algorithms.queries import Posterior

DIM = 10


def fitted(seed, count=200):
    rng = np.random.default_rng(seed)
    gaps = rng.standard_normal((count, DIM))
    truth = rng.standard_normal(DIM)
    labels = (rng.random(count) < 1 / (1 + np.exp(-gaps @ truth))).astype(float)
    posterior = Posterior(DIM)
    posterior.fit(gaps, labels)
    return posterior, gaps, labels, truth


def test_two_draws_differ_by_the_closed_form():
    posterior, gaps, *_ = fitted(0)
    rng = np.random.default_rng(1)
    for scale in (1.0, 2.5):
        thetas = np.array([posterior.draw(rng, scale) for _ in range(40_000)])
        gap = gaps[0]
        differences = np.abs((thetas[::2] - thetas[1::2]) @ gap)
        expected = queries.mean_difference(posterior.spread(gap[None])[0], scale)
        assert abs(differences.mean() - expected) < 4 * differences.std() / math.sqrt(len(differences))


def test_the_mean_is_where_the_posterior_is_largest_and_the_covariance_is_its_curvature():
    posterior, gaps, labels, _ = fitted(2)
    likely = 1 / (1 + np.exp(-gaps @ posterior.mean))
    gradient = gaps.T @ (labels - likely) - posterior.mean
    assert np.abs(gradient).max() < 1e-6
    hessian = np.eye(DIM) + (gaps.T * (likely * (1 - likely))) @ gaps
    np.testing.assert_allclose(posterior.covariance @ hessian, np.eye(DIM), atol=1e-9)
    assert posterior.log_det == pytest.approx(np.linalg.slogdet(hessian)[1])


def test_separable_labels_have_a_finite_mean():
    gaps = np.eye(DIM) * 100
    posterior = Posterior(DIM, ridge=1e-3)
    posterior.fit(gaps, np.ones(DIM))
    assert np.isfinite(posterior.mean).all()
    assert (gaps @ posterior.mean > 0).all()


def test_rank_one_updates_are_the_inverse():
    posterior, gaps, *_ = fitted(3)
    hessian = np.linalg.inv(posterior.covariance)
    for gap in gaps[:20]:
        posterior.expect(gap, 0.2)
        hessian += 0.2 * np.outer(gap, gap)
    np.testing.assert_allclose(posterior.covariance, np.linalg.inv(hessian), atol=1e-12)
    assert posterior.log_det == pytest.approx(np.linalg.slogdet(hessian)[1])


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_number_of_questions_is_never_above_its_bound(weight):
    counts = {}
    for least in (0.8, 0.4, 0.2):
        counts[least] = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            gaps = rng.standard_normal((2000, DIM)) / math.sqrt(DIM)
            posterior = Posterior(DIM)
            before = posterior.log_det
            asked = queries.above(posterior, gaps, least, len(gaps), weight)
            assert len(asked) <= queries.most(before, posterior.log_det, least, weight)
            if weight == 1:
                assert len(asked) <= 2 * (posterior.log_det - before) / min(1, least**2)
            counts[least].append(len(asked))
    few, some, many = (np.mean(counts[least]) for least in (0.8, 0.4, 0.2))
    assert few < some < many <= 4.5 * some, "it grows no faster than 1 / least^2"


def test_the_widest_are_those_of_a_search_with_whole_inverses():
    posterior, gaps, *_ = fitted(4)
    pool = gaps[:50]
    covariance, taken = posterior.covariance.copy(), []
    weights = [posterior.weight(gap) for gap in pool]
    for _ in range(8):
        norms = [-1 if number in taken else gap @ covariance @ gap for number, gap in enumerate(pool)]
        taken.append(int(np.argmax(norms)))
        gap = pool[taken[-1]]
        covariance = np.linalg.inv(np.linalg.inv(covariance) + weights[taken[-1]] * np.outer(gap, gap))
    assert queries.widest(posterior, pool, 8) == taken
    assert len(queries.widest(posterior, pool, 500)) == 50


def test_members_disagree_by_the_mean_of_their_differences():
    assert queries.disagreement([1.0, 2.0, 4.0]) == pytest.approx((1 + 3 + 2) / 3)
    assert queries.disagreement([0.5, 0.5]) == 0


def test_two_contenders_are_never_the_same_answer():
    assert queries.contenders(np.array([1, 3, 2]), np.array([0, 5, 4])) == (1, 2)
    assert queries.contenders(np.array([1, 3, 2]), np.array([9, 5, 4])) == (1, 0)


def test_before_any_label_the_head_is_normal_with_the_ridge_as_its_precision():
    before, fitted_to_none = Posterior(3, ridge=4.0), Posterior(3, ridge=4.0)
    fitted_to_none.fit(np.zeros((0, 3)), np.zeros(0))
    for posterior in (before, fitted_to_none):
        assert posterior.spread(np.array([[0.0, 2.0, 0.0]])) == pytest.approx([1.0])  # 2 / sqrt(4)
        assert posterior.log_det == pytest.approx(3 * math.log(4))
