"""Descent by ranks: the closed form of its estimate, and a quadratic against random search at equal price."""

import itertools
import math

import numpy as np
import pytest

from trimtab.pipelines.algorithms import ranked_steps
from trimtab.pipelines.algorithms.ranked_steps import Settings

DRAWS, DIM = 20_000, 20


def descents(count, ranked):
    """u . g mu and the cosine of g with u, of linear f(x) = u . x, draw by draw."""
    rng = np.random.default_rng(count + ranked)
    unit = np.eye(DIM)[0]
    products, cosines = [], []
    for _ in range(DRAWS // count):
        directions = rng.standard_normal((count, DIM))
        order = np.argsort(directions @ unit)[:ranked].tolist()
        ascent = ranked_steps.estimate(directions, order, 0.1)
        products.append(ascent @ unit * 0.1)
        cosines.append(ascent @ unit / np.linalg.norm(ascent))
    return np.array(products), np.array(cosines)


@pytest.mark.parametrize("count", [2, 4, 10, 30])
def test_the_estimate_of_a_linear_function_is_the_closed_form(count):
    products, _ = descents(count, count)
    assert abs(products.mean() - 2 / math.sqrt(math.pi)) < 4 * products.std() / math.sqrt(len(products))


def test_more_points_turn_the_estimate_towards_the_gradient():
    cosines = [descents(count, count)[1].mean() for count in (2, 4, 10, 30)]
    np.testing.assert_allclose(cosines, [0.18, 0.33, 0.54, 0.77], atol=0.02)
    assert abs(descents(10, 3)[0].mean() - 1.416) < 0.04


def test_weights_sum_to_zero_and_have_the_form_of_ranks():
    for count in range(2, 9):
        for ranked in range(1, count + 1):
            order = list(np.random.default_rng(count).permutation(count)[:ranked])
            balance = ranked_steps.weights(order, count)
            assert balance.sum() == 0
            assert [balance[place] for place in order] == [2 * rank - (count - 1) for rank in range(ranked)]
            unranked = [balance[place] for place in range(count) if place not in order]
            assert unranked == [ranked] * (count - ranked)


def lost(method, seed, rounds):
    """|x|^2 over that of the start, after each round of a search on a quadratic."""
    rng = np.random.default_rng(seed)
    start = rng.standard_normal(DIM)

    def oracle(points, count):
        values = [point @ point for point in points]
        return np.argsort(values, kind="stable")[:count].tolist()

    settings = Settings(points=10, ranked=10, mu=0.1, step=1.0, line=5, method=method)
    passed = itertools.islice(ranked_steps.search(oracle, start, settings, rng), rounds)
    rows = [(one.asked, float(one.x @ one.x) / float(start @ start), one.moved) for one in passed]
    assert [asked for asked, *_ in rows] == [16 * number for number in range(1, rounds + 1)], "equal price"
    return rows


def test_it_is_ahead_of_random_search_at_equal_price():
    ahead = [lost("ranks", seed, 40)[-1][1] < lost("random", seed, 40)[-1][1] for seed in range(8)]
    assert sum(ahead) >= 7
    assert np.mean([lost("ranks", seed, 40)[-1][1] for seed in range(8)]) < 0.05


def test_without_noise_it_never_gets_worse_and_stays_where_nothing_is_better():
    rows = lost("ranks", 0, 60)
    values = [1.0, *(value for _, value, _ in rows)]
    for (before, after), (_, _, moved) in zip(itertools.pairwise(values), rows, strict=True):
        assert after < before if moved else after == before


def test_the_line_search_halves_its_steps_in_one_direction():
    calls = []

    def first(points, count):
        calls.append(points)
        return list(range(count))

    settings = Settings(points=4, ranked=2, mu=0.1, step=2.0, line=4)
    next(ranked_steps.search(first, np.ones(3), settings, np.random.default_rng(0)))
    start, *ends = calls[1]
    moves = np.array([end - start for end in ends])
    np.testing.assert_allclose(np.linalg.norm(moves, axis=1), [2.0, 1.0, 0.5, 0.25])
    np.testing.assert_allclose(moves / np.linalg.norm(moves, axis=1, keepdims=True), np.tile(moves[:1] / 2.0, (4, 1)))


def test_estimates_since_the_last_move_are_averaged():
    rng = np.random.default_rng(0)
    calls = []

    def stubborn(points, count):
        calls.append(points)
        return list(range(count))  # the line search keeps x, which stands first

    start = np.zeros(3)
    settings = Settings(points=2, ranked=2, mu=1.0, step=1.0, line=1)
    list(itertools.islice(ranked_steps.search(stubborn, start, settings, rng), 3))
    ranked, lines = calls[::2], calls[1::2]
    ascents = [ranked_steps.estimate(np.array(points), [0, 1], 1.0) for points in ranked]
    for number, line in enumerate(lines, start=1):
        mean = np.mean(ascents[:number], axis=0)
        np.testing.assert_allclose(line[1], -mean / np.linalg.norm(mean))
