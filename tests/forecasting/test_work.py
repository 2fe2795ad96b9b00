"""Rows and batches: what is computed of a batch, and what becomes of texts that are cut, packed or drawn."""

import numpy as np
import pytest

from trimtab.pipelines.forecasting import rows
from trimtab.pipelines.forecasting.passes import Drawing
from trimtab.pipelines.forecasting.work import Rows


def test_a_batch_has_no_padding_and_the_prompt_of_a_row_once():
    mixed = Rows(100, np.array([[10.0], [30.0]]))
    mean, most = mixed.of_batch(8)
    assert mean == 8 * 20
    assert 8 * 20 < most <= 8 * 30
    pairs = Rows(100, np.array([[10.0, 50.0]]), asked=np.array([8.0]))
    assert pairs.of_batch(4) == (4 * (8 + 2 + 42), 4 * (8 + 2 + 42))


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


def test_rows_of_one_prompt_in_a_batch_have_it_once():
    four = Rows(100, np.full((1, 1), 30.0), prompts=25, asked=np.full(1, 20.0))
    assert four.of_batch(8)[0] == 8 * 30
    assert four.of_batch_by_prompt(8)[0] == 8 * 10 + 2 * 20
    assert four.of_batch_by_prompt(2)[0] == 2 * 10 + 20  # no more of them are in a batch


def test_the_largest_batch_of_sorted_rows_has_the_longest():
    mixed = Rows(100, np.arange(1.0, 101.0).reshape(-1, 1))
    assert mixed.of_batch_by_prompt(10) == (10 * 50.5, 10 * 95.5)


def test_prompts_are_answered_by_the_lengths_that_are_given():
    prompts = Rows(50, np.array([[5.0], [7.0]]))
    said = prompts.answered(np.array([3.0]))
    assert (said.tokens.tolist(), said.answers.tolist()) == ([[8], [10]], [[3], [3]])


def test_answers_that_have_ended_make_room_a_quarter_of_the_batch_at_a_time():
    def calls(lengths, rows=8, batch=4, **more):
        prompts = Rows(100, np.full((1, 1), 10.0))
        return Drawing(None, prompts, rows, batch, np.array(lengths), 16, **more).calls()

    assert calls([5.0]) == (2, 10, 40)  # all end together: two full batches
    assert calls([5.0], part=4) == (2, 10, 40)
    reads, says, rows = calls([2.0, 16.0], rows=400)
    assert 400 * 9 < rows < 1.4 * 400 * 9  # those that have ended go on until a quarter has
    assert says < 1.4 * 400 * 9 / 4
    assert reads > 100
