"""Values by their groups, as arrays: what a dictionary of lists would say of them."""

import numpy as np
import pytest

from trimtab.pipelines.algorithms.grouped_values import GroupedValues


def test_values_come_by_their_groups_in_the_order_of_their_rows():
    values = GroupedValues.of([1.0, 2.0, float("nan"), 4.0, 5.0, float("nan")], [7, 3, 7, 7, 3, 9])
    assert values.groups.tolist() == [3, 7]
    assert [group.tolist() for group in values] == [[2.0, 5.0], [1.0, 4.0]]
    assert values.means.tolist() == [3.5, 2.5]


def test_groups_among_others_keep_their_values():
    values = GroupedValues.of(np.arange(6.0), [1, 2, 3, 1, 2, 3]).among(np.array([0, 3, 1]))
    assert [group.tolist() for group in values] == [[0.0, 3.0], [2.0, 5.0]]
    assert values.groups.tolist() == [1, 3]


@pytest.mark.parametrize("groups", [[], [4]])
def test_nothing_is_no_group(groups):
    values = GroupedValues.of([float("nan")] * len(groups), groups)
    assert list(values) == []
    assert values.means.tolist() == []
    assert list(values.among(np.array([4]))) == []
