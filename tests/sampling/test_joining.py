"""Completions beside the rows of their prompts, whatever the order in which they were drawn."""

import pytest
from datasets import Dataset, Json

from trimtab.pipelines.sampling import joining

ROWS = Dataset.from_list([{"prompt": f"say {n}", "n": n, "completion": "of the file"} for n in range(5)])


def drawn(places):
    return Dataset.from_list([
        {"completion": f"{i}-{k}", "prompt_index": i, "sample_index": k, "completion_ids": list(range(1 + i)),
         "truncated": i == 4} for i, k in places
    ])  # fmt: skip


@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_rows_come_by_prompt_and_sample_in_batches(batch, monkeypatch):
    monkeypatch.setattr(joining, "BATCH", batch)
    completions = drawn([(i, k) for k in (1, 0) for i in (3, 0, 4, 1, 2)])
    whole = list(joining.batches(ROWS, completions))
    assert {len(part) for part in whole[:-1]} <= {batch}
    rows = [row for part in whole for row in part]
    assert [(row["prompt"], row["n"], row["completion"]) for row in rows] == [
        (f"say {i}", i, f"{i}-{k}") for i in range(5) for k in range(2)
    ]
    assert joining.totals(completions) == {"tokens": 30, "length": 3.0, "truncated": 0.2}


def test_values_that_are_json_stay_so():
    features = Dataset.from_dict({"prompt": ["a"], "tools": ["b"]}).features | {"tools": Json()}
    rows = Dataset.from_list([{"prompt": "say", "tools": [{"name": "f"}]}], features=type(ROWS.features)(features))
    (batch,) = joining.batches(rows, drawn([(0, 0)]))
    assert batch.features["tools"] == Json()
    assert batch[0]["tools"] == [{"name": "f"}]
