"""Micro-batches by tokens: what they hold, and that every training is that of micro-batches by rows."""

import pytest

from trimtab.pipelines.trainers.micro_batches import group_sizes, tokens


def test_a_rows_tokens_are_those_that_a_packed_model_computes():
    assert tokens({"input_ids": [1, 2, 3], "labels": [7, 7, 7]}) == 3
    assert tokens({"prompt_ids": [1, 2, 3], "chosen_ids": [4], "rejected_ids": [5, 6]}) == 6
    assert tokens({"chosen_ids": [1, 2, 3, 4], "rejected_ids": [1, 2, 5]}) == 5  # what both begin with is one
    assert tokens({"prompt_ids": [1], "completion_ids": [[2, 3], [2, 4], [2, 3, 5]], "ref_logps": [0.0]}) == 5
    with pytest.raises(ValueError, match="a row has none: text"):
        tokens({"text": "a"})


def test_groups_hold_no_more_than_their_tokens_on_any_rank_but_for_one_row():
    assert group_sizes([[30, 9, 5, 4, 3, 1]], 10, 0) == [1, 1, 2, 2]
    assert group_sizes([[30, 9, 5, 4, 3, 1]], 1000, 0) == [6]
    assert group_sizes([[4, 3, 2, 1], [6, 6, 1, 1]], 10, 0) == [1, 3]  # the first rank's would be all four
    assert group_sizes([[4, 3, 2, 1], [2, 2, 9, 9]], 10, 2) == [2, 1, 1]  # the third row of one rank is a repeat
    assert group_sizes([[1, 1, 1, 1]], 10, 3) == [3, 1]
