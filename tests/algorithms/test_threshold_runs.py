"""Training that searches for thresholds, with means given by hand: when it asks, where it aims, what is left."""

import json

import numpy as np
import pytest

from trimtab.pipelines.algorithms import thresholds
from trimtab.pipelines.algorithms.lagrange import Constraint, Multipliers
from trimtab.pipelines.algorithms.searching import Searching, ThresholdSearch

START, FAR = {"a": 1.0, "b": -2.0}, {"a": 3.0, "b": 0.0}


def search(total=100, **settings):
    """A search between START and FAR that has seen its start."""
    constraints = {name: Constraint(value, "equal") for name, value in FAR.items()}
    objective = Searching({}, Multipliers(constraints), ThresholdSearch(metric="gold", **settings), seed=3)
    objective.begin(total)
    assert not objective.asks
    objective.observe(START)
    return objective


def aims(objective):
    return {name: constraint.threshold for name, constraint in objective.multipliers.constraints.items()}


def driven(objective, means, steps=1):
    for _ in range(steps):
        objective.observe(means)
        objective.step()


def test_the_first_points_are_those_of_the_simplex_from_the_start_towards_the_blocks_thresholds():
    objective = search(reach=0.5)
    low = np.array([1.0, -2.0])
    simplex = thresholds.simplex(low, np.array([2.0, -1.0]), 3)
    assert list(aims(objective).values()) == pytest.approx(simplex[0])
    driven(objective, aims(objective))
    objective.tell(0.3)
    assert list(aims(objective).values()) == pytest.approx(simplex[1])
    assert all(1 <= value <= 2 for value in simplex[:, 0])


def test_it_asks_where_every_reward_is_near_its_threshold():
    objective = search(within=0.1, patience=50)
    point = aims(objective)
    near = {name: value + 0.09 * max(abs(value), abs(value - START[name])) for name, value in point.items()}
    below = {name: value - 0.09 * max(abs(value), abs(value - START[name])) for name, value in point.items()}
    off = {name: value + 0.11 * max(abs(value), abs(value - START[name])) for name, value in point.items()}
    for means, asked in ((near, True), (below, True), (off, False), ({**near, "b": off["b"]}, False)):
        driven(objective, means)
        assert (objective.reached, objective.asks) == (asked, asked)


def test_it_asks_after_its_patience_and_not_before():
    objective = search(patience=4)
    far_off = {"a": 100.0, "b": 100.0}
    driven(objective, far_off, 3)
    assert not objective.asks
    driven(objective, far_off)
    assert objective.asks
    objective.tell(0.1)
    assert "after 4 steps (not reached)" in objective.decisions[-1]
    assert not objective.asks  # no step has been made towards the next point
    driven(objective, far_off, 3)
    assert not objective.asks


def test_patience_is_an_eighth_of_all_steps_unless_it_is_given():
    objective = search(total=80)
    driven(objective, {"a": 100.0, "b": 100.0}, 9)
    assert not objective.asks
    driven(objective, {"a": 100.0, "b": 100.0})
    assert objective.asks


def test_in_the_last_steps_the_best_point_is_held():
    objective = search(total=20, settle=0.25, patience=3, cache=0.0)
    seen = []
    for value in (0.2, 0.9, 0.4, 0.1):
        driven(objective, {"a": 100.0, "b": 100.0}, 3)
        assert objective.asks
        seen.append(aims(objective))
        objective.tell(value)
    driven(objective, {"a": 100.0, "b": 100.0}, 2)
    assert not objective.settled
    driven(objective, {"a": 100.0, "b": 100.0})  # the fifteenth of twenty
    assert objective.settled
    assert aims(objective) == pytest.approx(seen[1])
    assert "held from now on" in objective.decisions[-1]
    driven(objective, {"a": 100.0, "b": 100.0}, 5)
    assert not objective.asks
    result = objective.result()
    assert result["thresholds"] == pytest.approx(seen[1])
    assert [row["value"] for row in result["history"]] == [0.2, 0.9, 0.4, 0.1]
    assert objective.report()["search/best"] == 0.9
    assert objective.report()["search/points"] == 4


def test_values_that_are_all_alike_end_the_search():
    objective = search(tolerance=0.01, cache=0.0, patience=1)
    for _ in range(3):
        assert not objective.settled
        driven(objective, {"a": 100.0, "b": 100.0})
        objective.tell(0.5)
    assert objective.settled
    with pytest.raises(ValueError, match="no point was asked for"):
        objective.tell(0.5)


def test_a_point_near_to_one_of_before_is_told_and_not_asked_again():
    objective = search(patience=1, cache=0.9, reach=0.05)  # every point is near to the first
    driven(objective, {"a": 100.0, "b": 100.0})
    first = aims(objective)
    objective.tell(0.5)
    told, *again = objective.decisions
    assert told.startswith("a ")
    assert "gold 0.5 after 1 steps (not reached)" in told
    near = [row for row in objective.begun.search.history if row["reused"]]
    assert len(near) == len(again) == 3  # and then it is asked again
    assert all(line.endswith(": 0.5, as near to it before") for line in again)
    assert objective.report()["search/points"] == 4
    assert aims(objective) != first


def test_a_value_grows_old_after_a_quarter_of_all_steps_unless_it_is_said():
    assert search(total=80).begun.search.stale_after == 20
    assert search(total=80, stale_after=7).begun.search.stale_after == 7
    again = search(total=80)
    again.begin(40)
    assert again.begun.search.stale_after == 10


def test_its_state_is_found_again_in_the_middle_of_a_point():
    whole, first = (search(patience=3, cache=0.0) for _ in range(2))
    means = [{"a": 1 + 0.1 * step, "b": -2 + 0.1 * step} for step in range(20)]

    def run(objective, part):
        for of_step in part:
            driven(objective, of_step)
            if objective.asks:
                objective.tell(of_step["a"] - of_step["b"] ** 2)
        return objective

    run(whole, means)
    run(first, means[:7])
    constraints = {name: Constraint(value, "equal") for name, value in FAR.items()}
    settings = ThresholdSearch(metric="gold", patience=3, cache=0.0)
    second = Searching({}, Multipliers(constraints), settings, seed=3)
    second.begin(100)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert (second.spent, second.steps, aims(second)) == (first.spent, first.steps, aims(first))
    assert run(second, means[7:]).state_dict() == whole.state_dict()


@pytest.mark.parametrize(("change", "message"), [
    ({"within": 0}, "within must be above 0"),
    ({"reach": -1}, "reach must be above 0"),
    ({"cache": 1}, "cache must be at least 0 and below 1"),
    ({"settle": -0.1}, "settle must be at least 0"),
    ({"patience": 0}, "patience must be at least 1"),
    ({"stale_after": 0}, "stale_after must be at least 1"),
])  # fmt: skip
def test_settings_that_cannot_be_right(change, message):
    with pytest.raises(ValueError, match=message):
        ThresholdSearch(metric="gold", **change)
