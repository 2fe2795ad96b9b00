"""The peak of memory and the time of the processors, measured by a process of itself."""

import sys

import numpy as np
import pytest

from trimtab.pipelines.recording import usage

MANY = 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="the peak begins anew on Linux alone")
def test_the_peak_is_that_of_the_time_since_and_not_of_what_came_before():
    before, resident = usage.Usage(), usage.resident()
    held = np.ones(MANY, np.uint8)
    assert usage.resident() - resident > 0.9 * MANY
    peak = before.measured()["peak_bytes"]
    del held
    after = usage.Usage().measured()["peak_bytes"]
    assert peak - after > 0.9 * MANY


def test_a_step_of_several_ranks_has_the_numbers_of_the_rank_that_has_most():
    first, second = {"peak_bytes": 3, "cpu_seconds": 1.5}, {"peak_bytes": 2, "cpu_seconds": 2.5}
    assert usage.largest([first, second]) == {"peak_bytes": 3, "cpu_seconds": 2.5}
