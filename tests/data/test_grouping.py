"""Rows by their values, as arrays: the same groups in the same order as a dictionary of lists would give."""

import random

import numpy as np
import pytest
from datasets import Dataset

from trimtab.pipelines.data import grouping


@pytest.mark.parametrize("value", [int, str])
def test_groups_of_a_column_come_in_the_order_of_their_first_rows(value):
    values = [value(random.Random(0).randint(0, 9)) for _ in range(50)] + [value(number) for number in (3, 11, 3, 0)]
    rows = Dataset.from_dict({"of": values, "number": range(len(values))})
    expected: dict = {}
    for number, of in enumerate(values):
        expected.setdefault(of, []).append(number)
    groups = grouping.by_column(rows, "of")
    assert [[row["number"] for row in group] for group in groups.rows(rows, ["number"])] == list(expected.values())
    assert len(groups) == len(expected)
    assert groups.sizes.tolist() == list(map(len, expected.values()))


def test_sorted_groups_do_not_depend_on_the_order_of_the_rows():
    rows = Dataset.from_dict({"number": range(6)})
    groups = grouping.sorted_by(np.array([7, 2, 7, 2, 5, 7]), np.array([2, 1, 0, 0, 0, 1]))
    assert [[row["number"] for row in group] for group in groups.rows(rows, ["number"])] == [[3, 1], [4], [2, 5, 0]]


def test_no_rows_are_no_groups():
    nothing = np.array([], dtype=int)
    assert len(grouping.sorted_by(nothing, nothing)) == 0
