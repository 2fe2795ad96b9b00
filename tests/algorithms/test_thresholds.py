"""The search for thresholds: both searches on problems with a known end, and their state."""

import json

import numpy as np
import pytest
from scipy.stats import qmc

from trimtab.pipelines.algorithms import tabular, thresholds
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers, MultiplierSettings


def run(asking, value, most):
    """Asks up to `most` times and returns the points with their values."""
    rows = []
    point = next(asking)
    while len(rows) < most:
        rows.append((point, value(point)))
        try:
            point = asking.send(rows[-1][1])
        except StopIteration:
            break
    return rows


class Bandit:
    """Twelve answers, two rewards, and a gold reward of their means that is largest where lambda is (2, 1)."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        self.reference, self.rewards = np.log(rng.dirichlet(np.ones(12))), rng.random((2, 12))
        self.start = self.rewards @ np.exp(self.reference)
        self.peak = self.rewards @ np.exp(tabular.tilted(self.reference, self.rewards, np.array([0.8, 0.4])))
        self.solves = 0

    def gold(self, point):
        """Of the policy that the project's multipliers hold at the thresholds `point`."""
        self.solves += 1
        settings = MultiplierSettings(parametrization="softplus", learning_rate=2.0, max_grad_norm=100, momentum=0.5)
        names = dict(zip("ab", point, strict=True))
        multipliers = Multipliers({name: Constraint(value, "equal") for name, value in names.items()}, settings)
        table = dict(zip("ab", self.rewards, strict=True))
        policy = np.exp(tabular.primal_dual(self.reference, table, multipliers, 2000, 0.5))
        return -float(np.square(self.rewards @ policy - self.peak).sum())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_nelder_mead_finds_the_thresholds_of_the_bandit_within_80_solves(seed):
    bandit = Bandit(seed)
    rows = run(thresholds.nelder_mead(thresholds.simplex(bandit.start, bandit.start + 0.15, seed)), bandit.gold, 80)
    best = max(rows, key=lambda row: row[1])[0]
    assert bandit.solves <= 80
    assert np.abs(bandit.start - bandit.peak).max() > 0.01
    np.testing.assert_allclose(best, bandit.peak, atol=1e-5)


def test_nelder_mead_shrinks_and_ends_when_its_values_are_alike():
    rows = run(thresholds.nelder_mead(np.array([[0.0, 0], [1, 0], [0, 1]]), 1e-6), lambda p: -float(p @ p), 200)
    assert len(rows) < 120
    assert max(rows, key=lambda row: row[1])[1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(("told", "asked"), [
    ([2.5], [0, -1]),  # between the worst but one and the best: the reflected point is taken
    ([3.0], [0, -1]),  # as good as the best is not better
    ([4.0, 5.0], [0.5, -2]),  # better than the best: so is twice as far
    ([4.0, 3.5], [0, -1]),  # twice as far is worse
    ([2.0, 1.2], [0.75, -0.5]),  # no better than the worst but one: halfway to the worst is better than it
    ([1.5, 0.5, 9.0, 8.0], [0.5, 0.5]),  # nothing is better: all go halfway to the best, and are asked
])  # fmt: skip
def test_nelder_mead_goes_where_its_rules_say(told, asked):
    """From (0, 0), (1, 0), (0, 1) with the values 3, 2, 1; the next point that is asked for after those answers."""
    asking = thresholds.nelder_mead(np.array([[0.0, 0], [1, 0], [0, 1]]), tolerance=0.01)
    points = [next(asking), *(asking.send(value) for value in (3.0, 2.0, 1.0))]
    np.testing.assert_allclose(points[-1], [1, -1])
    points += [asking.send(value) for value in told]
    np.testing.assert_allclose(points[-1], asked)
    if len(told) == 4:
        np.testing.assert_allclose(points[-4:-1], [[0.25, 0.5], [0.5, 0], [0, 0.5]])


@pytest.mark.parametrize(("values", "ends"), [((1.0, 1.01, 1.0), True), ((1.0, 1.1, 1.0), False)])
def test_nelder_mead_ends_below_its_tolerance(values, ends):
    asking = thresholds.nelder_mead(np.array([[0.0, 0], [1, 0], [0, 1]]), tolerance=0.02)
    next(asking)
    for value in values[:2]:
        asking.send(value)
    if ends:
        with pytest.raises(StopIteration):
            asking.send(values[2])
    else:
        assert asking.send(values[2]) is not None


def test_bayes_asks_inside_of_its_box_and_near_to_the_best_it_was_told():
    low, high = np.array([-3.0, 10.0]), np.array([-1.0, 20.0])
    peak = np.array([-1.5, 12.0])
    rows = run(thresholds.bayes(low, high, 0), lambda p: -float(np.abs((p - peak) / (high - low)).sum()), 9)
    points = np.array([point for point, _ in rows])
    assert ((points >= low) & (points <= high)).all()
    spread = low + qmc.Sobol(2, seed=0).random_base2(9)[:5] * (high - low)
    np.testing.assert_allclose(points[:4], spread[:4])  # before anything is known
    assert np.abs(points[4] - spread[4]).max() > 1e-3
    assert np.abs((points[-2:] - peak) / (high - low)).max() < np.abs((points[:4] - peak) / (high - low)).max() / 2


@pytest.mark.parametrize("seed", range(3))
def test_bayes_comes_near_to_the_peak_of_a_noisy_metric(seed):
    rng, peak, low, high = np.random.default_rng(seed), np.array([0.4, -1.0]), np.array([0.0, -4]), np.array([1.0, 2])

    def truth(point):
        return -float(np.square((point - peak) / (high - low)).sum())

    rows = run(thresholds.bayes(low, high, seed), lambda p: truth(p) + 0.02 * rng.standard_normal(), 24)
    late = np.mean([truth(point) for point, _ in rows[-6:]])
    points, values = np.array([(p - low) / (high - low) for p, _ in rows]), np.array([value for _, value in rows])
    best = rows[int(np.argmax(thresholds.fit(points, values).predict(points)))][0]
    assert truth(best) > -0.02
    assert late > np.mean([truth(point) for point, _ in rows[:4]])


@pytest.mark.parametrize("kind", ["nelder_mead", "bayes"])
def test_a_search_goes_on_from_its_state(kind):
    def asking():
        low, high = np.zeros(2), np.ones(2)
        return (
            thresholds.bayes(low, high, 3)
            if kind == "bayes"
            else thresholds.nelder_mead(thresholds.simplex(low, high, 3))
        )

    def value(point):
        return -float(np.square(point - 0.3).sum())

    whole = thresholds.Search(asking)
    for at in range(12):
        whole.tell(value(whole.point), at)
    half = thresholds.Search(asking)
    for at in range(5):
        half.tell(value(half.point), at)
    again = thresholds.Search(asking)
    again.load_state_dict(json.loads(json.dumps(half.state_dict())))
    for at in range(5, 12):
        again.tell(value(again.point), at)
    assert again.history == whole.history


def test_a_small_simplex_is_asked_again_and_not_turned_for_ever():
    low, high, peak = np.array([1.0, -2.0]), np.array([3.0, -1.0]), np.array([2.0, -1.5])
    search = thresholds.Search(lambda: thresholds.nelder_mead(thresholds.simplex(low, high, 3)), cache=0.05)
    for step in range(60):  # the simplex is soon smaller than the distance at which a value is taken again
        search.tell(-float(np.square(search.point - peak).sum()), step)
    reused = [row["reused"] for row in search.history]
    assert reused.count(False) == 60
    assert reused.count(True) >= 60
    longest = max(len(run) for run in "".join("r" if again else " " for again in reused).split())
    assert longest == 3
    assert (np.abs(np.array(search.best["point"]) - peak) <= 0.05 * np.abs(peak)).all()


def test_near_points_are_not_asked_twice_unless_their_value_is_stale():
    def asking():
        for point in ([1.0], [1.04], [2.0], [1.03]):
            yield np.array(point)

    search = thresholds.Search(asking, cache=0.05, stale_after=10)
    search.tell(7.0, step=0)  # and 1.04 is near
    assert [row["reused"] for row in search.history] == [False, True]
    assert search.point.tolist() == [2.0]
    search.tell(8.0, step=20)  # by now the value at 1.0 is old
    assert search.point.tolist() == [1.03]
    search.tell(6.0, step=21)
    assert search.point is None
    with pytest.raises(ValueError, match="asks for no value"):
        search.tell(5.0, step=22)
    assert search.best["point"] == [2.0]
