"""Numbers as the report prints them."""

import math

import pytest

from trimtab.pipelines.reporting.numerals import duration, in_errors, number, off, percent, size, with_error


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (3000, "3,000"),
        (0.86283, "0.8628"),
        (-1.25, "−1.25"),
        (5e-7, "5.00e−07"),
        (0, "0"),
    ],
)
def test_numbers(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("mean", "stderr", "shown"),
    [(0.6241, 0.0183, "0.624 ± 0.018"), (31.24, 4.2, "31.2 ± 4.2"), (1.5, None, "1.500"), (math.nan, 1, "–")],
)
def test_errors_have_two_digits(mean, stderr, shown):
    assert with_error({"mean": mean, "stderr": stderr}) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.21, "4.2 s"), (200, "3 min 20 s"), (3900, "1 h 05 min"), (None, "–")]
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


def test_shares_and_differences_in_errors():
    assert percent(0.714) == "71.4%"
    assert percent(None) == "–"
    assert in_errors({"mean": -0.2, "stderr": 0.1}) == "−2.0 s.e."
    assert in_errors({"mean": 0.2, "stderr": 0}) == in_errors("none") == "–"


def test_bytes_and_how_far_a_forecast_was_off():
    assert [size(count) for count in (0, 1 << 20, 1.5 * 2**30, None)] == ["0 B", "1 MiB", "1.5 GiB", "–"]
    assert [off(11, 10), off(5, 10), off(998, 1000), off(None, 10), off(5, 0)] == ["+10%", "−50%", "+0%", "–", "–"]
