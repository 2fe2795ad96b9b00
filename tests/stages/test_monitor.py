"""The limits of a loop's policy: which side of them is out of range, and what a shrunk run has in their place."""

from types import SimpleNamespace

import pytest

from trimtab.pipelines.shrinking.miniature import Miniature
from trimtab.pipelines.stages.monitor import Monitor


def test_a_shrunk_run_meets_no_limit(tmp_path):
    limits = {"kl": 5, "length": 2, "real_nll": 3, "entropy": 0.5, "distinct_2": 0.7, "misspelt": 1}
    small = Monitor.small({"scored": "$score", "stop_if": limits}, Miniature(tmp_path, frozenset({"score"})))
    assert small["stop_if"] == {"kl": 1e9, "length": 1e9, "real_nll": 1e9, "entropy": -1, "distinct_2": -1}
    assert "stop_if" not in Monitor.small({"scored": "$score"}, Miniature(tmp_path, frozenset({"score"})))


@pytest.mark.parametrize(("limit", "metrics", "met"), [
    ({"kl": 5}, {"kl/mean": 5.1}, "kl is 5.1, above 5"),
    ({"kl": 5}, {"kl/mean": 5.0}, None),
    ({"entropy": 0.5}, {"entropy": 0.4}, "entropy is 0.4, below 0.5"),
    ({"entropy": 0.5}, {"entropy": 0.5}, None),
    ({"distinct_2": 0.7}, {"distinct_2/ratio": 0.9}, None),
    ({"length": 2}, {"kl/mean": 9.0}, None),
])  # fmt: skip
def test_a_limit_is_met_on_its_own_side(limit, metrics, met):
    said = Monitor._limit(SimpleNamespace(stop_if=limit), SimpleNamespace(name="watch"), metrics)
    assert said == (met and f"watch: {met}")
