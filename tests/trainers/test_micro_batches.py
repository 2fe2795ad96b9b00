"""Micro-batches by tokens: what they hold, and that every training is that of micro-batches by rows."""

from types import SimpleNamespace

import pytest

from trimtab.pipelines.trainers.micro_batches import (
    MicroBatchTrainer,
    group_sizes,
    rows_of_this_rank,
    rows_that_count,
    tokens,
)


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


def trainer_at(rank, ranks, rows, *, ends=True, drops=False):
    """As much of a trainer as these functions look at, whose epoch of so many rows ends here or goes on."""
    state = SimpleNamespace(end_of_dataloader=ends, active_dataloader=SimpleNamespace(dataset=range(rows)))
    accelerator = SimpleNamespace(gradient_state=state, num_processes=ranks, process_index=rank, device="cpu",
                                  gather=lambda lengths: lengths)  # fmt: skip
    args = SimpleNamespace(dataloader_drop_last=drops)
    return SimpleNamespace(accelerator=accelerator, args=args, data_collator=list, tokens_per_batch=10)


def test_rows_that_fill_up_the_last_batches_of_an_epoch_do_not_count():
    """Eleven rows on three ranks of two: the second batches have five, and the first row of the data once more."""
    assert [rows_of_this_rank(trainer_at(rank, 3, 11), 2) for rank in range(3)] == [2, 2, 1]
    assert [rows_of_this_rank(trainer_at(rank, 3, 7), 2) for rank in range(3)] == [1, 0, 0]
    assert rows_that_count(trainer_at(0, 3, 11), 2) == 5
    assert rows_that_count(trainer_at(0, 3, 11), 2, repeats=2) == 4
    assert rows_that_count(trainer_at(0, 3, 12), 2) == 6, "the last batches are full"
    for going_on in ({"ends": False}, {"drops": True}):
        assert rows_that_count(trainer_at(0, 3, 11, **going_on), 2) == 6
    assert rows_that_count(trainer_at(0, 1, 7), 3) == 3, "of one rank the last batch is smaller, and has no repeats"


def test_a_step_that_is_cut_by_tokens_has_each_row_once_longest_first():
    rows = [{"input_ids": [1] * length} for length in (3, 9, 5, 4)]
    batches, step = MicroBatchTrainer._cut_by_tokens(trainer_at(0, 1, 8), rows)
    assert [[len(row["input_ids"]) for row in batch] for batch in batches] == [[9], [5, 4], [3]]
    assert (step.sizes, step.counted, step.total) == ([1, 2, 1], [1, 2, 1], 4)
