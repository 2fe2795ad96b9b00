"""Optimisation problems whose optimum is known, and the programs that find it, run here in their own words."""

from itertools import islice
from random import Random

import pyarrow.parquet as pq
import pytest
from run_steps import run_recipe

from trimtab.pipelines.data import linear_programmes
from trimtab.pipelines.data.linear_programmes import Programme

TOYS = Programme(True, ("chairs", "tables"), (3, 5), ("hours", "kilos"), ((1, 1), (1, 3)), (40, 60))


def test_the_optimum_is_at_the_best_corner():
    """3 x + 5 y under x + y <= 40 and x + 3 y <= 60: the corners are 0, 100, 120 and, at (30, 10), 140."""
    assert TOYS.optimum() == pytest.approx(140)
    cheap = Programme(False, ("oats", "beans"), (2, 3), ("iron", "fat"), ((1, 2), (3, 1)), (10, 15))
    assert cheap.optimum() == pytest.approx(17)  # at (4, 3); the other corners cost 20 and 45


def test_a_program_leaves_the_optimum_and_the_words_have_every_number():
    for programme in islice(linear_programmes.drawn(Random(0)), 20):
        names = {}
        exec(programme.program(), names)
        assert names["answer"] == pytest.approx(programme.optimum())
        numbers = [*programme.gains, *programme.limits, *(rate for row in programme.rates for rate in row)]
        for said in (str(programme), programme.elements()):
            assert all(str(number) in said for number in numbers)
            assert all(word in said for word in (*programme.names, *programme.sources))


def test_nothing_that_is_learned_is_tested(tmp_path):
    block = {"sft": 6, "problems": 5, "test": 4}
    step = run_recipe(tmp_path, {"linear_programmes": block})["linear_programmes"]
    tables = {
        (name, split): pq.read_table(step.output / name / f"{split}.parquet").to_pylist()
        for name in ("sft", "problems")
        for split in ("train", "test")
    }
    assert {key: len(rows) for key, rows in tables.items()} == {
        ("sft", "train"): 18,
        ("sft", "test"): 12,
        ("problems", "train"): 5,
        ("problems", "test"): 4,
    }
    asked = [row["prompt"][0]["content"] for rows in tables.values() for row in rows]
    assert len(set(asked)) == len(asked)
    for row in tables["problems", "test"]:
        names = {"answer": row["answer"]}
        exec(row["test_list"][0], names)
        exec(row["checks"][0], names)
        with pytest.raises(AssertionError):
            exec(row["test_list"][0], {"answer": row["answer"] * 1.01 + 1})
