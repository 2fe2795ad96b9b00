"""Rows and batches: how long the longest text of a batch is, and what becomes of texts that are cut or packed."""

import numpy as np
import pytest

from trimtab.pipelines.forecasting import rows
from trimtab.pipelines.forecasting.work import Rows


def test_a_batch_is_as_long_as_its_longest_text():
    mixed = Rows(100, np.array([[10.0], [30.0]]))
    mean, most = mixed.padded(1)
    assert (mean, most) == (pytest.approx(20, rel=0.1), 30)
    mean, most = mixed.padded(8)
    assert (mean, most) == (pytest.approx(240, rel=0.05), 240)


def test_texts_are_cut_packed_and_taken_apart():
    pairs = Rows(100, np.array([[10.0, 50.0]]))
    assert pairs.cut(20).tokens.tolist() == [[10, 20]]
    assert pairs.shaped(1).count == 200
    packed = pairs.packed(30)
    assert (packed.count, packed.tokens.tolist()) == (200, [[30]])


def test_a_mixture_has_the_lengths_of_both_in_their_shares():
    both = rows.joined([Rows(300, np.array([[10.0]]), 300), Rows(100, np.array([[30.0]]), 100)])
    assert both.count == 400
    assert both.tokens.mean() == pytest.approx(15)


def test_texts_that_are_sorted_by_length_need_less_padding():
    mixed = Rows(100, np.arange(1.0, 101.0).reshape(-1, 1))
    mean, most = mixed.padded_by_length(10, 100)
    assert (mean, most) == (10 * 55, 10 * 100)
    assert mean < mixed.padded(10)[0]
