"""Errors over seeds and prompts: closed forms, a null that is rarely rejected, and Holm's correction."""

import math

import numpy as np
import pytest

from trimtab.pipelines.algorithms.settings import difference, estimate, holm


def cells(table, first=0):
    """Values by seeds (rows) and prompts (columns)."""
    rows = np.asarray(table, dtype=float)
    return {f"seed={seed}": {f"p{first + p}": value for p, value in enumerate(row)} for seed, row in enumerate(rows)}


def test_what_is_the_seeds_alone_has_the_error_of_the_seeds():
    table = np.array([1.0, 2.0, 4.0])[:, None] + np.zeros(6)
    result = estimate(cells(table))
    assert (result.mean, result.seeds, result.prompts, result.degrees) == (pytest.approx(7 / 3), 3, 6, 2)
    assert result.stderr == pytest.approx(np.std([1, 2, 4], ddof=1) / math.sqrt(3))


def test_what_is_the_prompts_alone_has_the_error_of_the_prompts():
    prompts = np.array([0.0, 1.0, 5.0, 2.0])
    for seeds in (1, 3):
        result = estimate(cells(np.tile(prompts, (seeds, 1))))
        assert result.stderr == pytest.approx(prompts.std(ddof=1) / 2)
        assert result.degrees == pytest.approx(3)  # the prompts'


def test_prompts_of_each_seed_leave_the_seeds_as_units():
    of_each = {**cells([[1, 3]]), "seed=1": {"other": 5.0, "another": 7.0}}
    result = estimate(of_each)
    assert (result.mean, result.prompts, result.degrees) == (4, 0, 1)
    assert result.stderr == pytest.approx(2)
    assert math.isnan(estimate({"seed=0": {"": 3.0}}).stderr)
    with pytest.raises(ValueError, match="every seed"):
        estimate({})


def test_the_same_seeds_and_prompts_are_paired():
    rng = np.random.default_rng(0)
    theirs = rng.normal(size=(3, 40)) * 10
    ours = theirs + 1 + rng.normal(size=(3, 40)) * 0.1
    gap = difference(cells(ours), cells(theirs))
    assert gap.paired
    assert gap.mean == pytest.approx(1, abs=0.05)
    assert gap.probability < 0.001
    apart = difference(cells(ours), cells(theirs, first=100))
    assert not apart.paired
    assert apart.probability > 0.05


def test_equal_settings_differ_in_nothing_and_single_values_say_nothing():
    assert difference(cells([[1, 2], [3, 4]]), cells([[1, 2], [3, 4]])).probability == 1
    assert math.isnan(difference({"a": {"": 1.0}}, {"a": {"": 2.0}}).probability)


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0])
def test_no_difference_is_rarely_called_one(spread):
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(300):
        gaps = rng.normal(size=(3, 1)) * spread + rng.normal(size=(1, 20)) + rng.normal(size=(3, 20))
        false += difference(cells(gaps), cells(np.zeros((3, 20)))).probability < 0.05
    assert false <= 0.08 * 300


def test_holm():
    corrected = holm([0.01, 0.04, 0.03, math.nan])
    assert corrected[:3] == pytest.approx([0.03, 0.06, 0.06])
    assert math.isnan(corrected[3])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
