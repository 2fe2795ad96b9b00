"""Refined learning rates in closed forms: of norms that stay, that fall, and that were logged now and then."""

import numpy as np
import pytest

from trimtab.pipelines.algorithms import schedules
from trimtab.pipelines.algorithms.schedules import ScheduleSettings


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("norm", [1.0, 0.37, 1e-8])
def test_norms_that_stay_give_linear_decay(norm, power):
    """(T - 1 - t) / T: 0.9, 0.8, ..., 0 for ten steps, whatever the norm."""
    assert schedules.refined(np.full(10, norm), power) == pytest.approx(np.arange(9, -1, -1) / 10, abs=1e-14)


def test_falling_norms_give_a_warm_up_that_peaks_at_57_percent():
    """Norms t^-1/2 have weights t, and t (T^2 - t^2) is largest at T / sqrt(3); of sqrt(t) at 0.40 T."""
    norms = np.arange(1, 2001) ** -0.5
    for power, peak in ((2, 3**-0.5), (1, 0.25 ** (2 / 3))):
        assert np.argmax(schedules.refined(norms, power)) / 2000 == pytest.approx(peak, abs=2e-3)
    rates = schedules.factors(schedules.ends(2000), norms, 2000, ScheduleSettings(refine="", weights="l2").power)
    assert np.argmax(rates) / 2000 == pytest.approx(3**-0.5, abs=0.01)  # smoothed by their median as well
    assert rates.max() == 1
    assert rates[-1] == 0
    assert rates[0] < 0.1, "a warm-up"
    assert (np.diff(rates[100:1000]) > 0).all()


def test_a_schedule_is_of_the_shape_of_the_norms_and_not_of_their_unit():
    norms = np.random.default_rng(0).lognormal(size=200)
    places = schedules.ends(200)
    assert schedules.factors(places, 7 * norms, 200) == pytest.approx(schedules.factors(places, norms, 200), abs=1e-12)


def test_single_spikes_and_gradients_of_zero_leave_a_schedule_as_it_is():
    norms = np.ones(100)
    norms[[20, 61]] = 0.0, 1e6
    rates = schedules.factors(schedules.ends(100), norms, 100)
    assert rates == pytest.approx(schedules.factors(schedules.ends(100), np.ones(100), 100), abs=1e-12)
    assert np.isfinite(schedules.refined(np.array([0.0, 0.0, 1.0, 1.0]))).all()


def test_norms_of_a_training_of_another_length_are_stretched():
    """Those of every fourth step of 400 make, for 100 steps, the schedule of all of them in a training of 100."""
    often = np.linspace(2.0, 0.5, 400)
    places = schedules.ends(400)
    short = schedules.factors(places[3::4], often[3::4], 100)
    assert short == pytest.approx(schedules.factors(schedules.ends(100), often[3::4], 100), abs=1e-12)
    assert schedules.factors(places, often, 100) == pytest.approx(short, abs=0.02)


def test_the_weights_are_of_the_norm_or_of_its_square():
    assert ScheduleSettings(refine="first").power == ScheduleSettings(refine="first", weights="l1").power == 1
    assert ScheduleSettings(refine="first", weights="l2").power == 2
