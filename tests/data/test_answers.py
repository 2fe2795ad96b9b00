"""Answers by their places: words that stay on the disk, and are found again."""

import tracemalloc

import pytest
from datasets import Dataset

from trimtab.pipelines.data import answers as of_rows
from trimtab.pipelines.data import grouping
from trimtab.pipelines.data.answers import Answers


def said(words):
    return [{"role": "assistant", "content": words}]


@pytest.fixture
def pool():
    completions = [
        {
            "prompt": f"p{number // 2}",
            "completion": said(f"c{number % 3}"),
            "prompt_index": number // 2,
            "scores": number,
        }
        for number in range(7)
    ]
    pairs = [{"prompt": "p1", "chosen": said("c0"), "rejected": said("d")}]
    return [Dataset.from_list(completions), Dataset.from_list(pairs)]


def test_every_answer_is_found_again_and_equal_words_are_equal(pool):
    answers = Answers(pool)
    assert len(answers) == 7 + 2
    assert [answers.of(place)[1][0]["content"] for place in range(9)] == [*("c0 c1 c2 c0 c1 c2 c0".split()), "c0", "d"]
    assert answers.of(8)[0]["prompt"] == "p1"
    assert len({answers.says[place] for place in (0, 3, 6, 7)}) == 1
    assert len(set(answers.says)) == 4
    assert answers.asks[2] == answers.asks[7] != answers.asks[0]
    assert list(answers.column("scores")) == [*range(7), None, None]
    prompts, words = zip(*answers.batches(), strict=True)
    assert [prompt for batch in prompts for prompt in batch] == [answers.of(place)[0]["prompt"] for place in range(9)]
    assert [one for batch in words for one in batch] == [answers.of(place)[1] for place in range(9)]


def test_the_first_row_of_a_prompt_is_kept(pool):
    assert of_rows.first_of_prompts(pool[0])["scores"] == [0, 2, 4, 6]


def test_memory_does_not_grow_with_what_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(grouping, "BATCH", 20)
    rows = [
        {"prompt": f"{n} " + "p" * 4000, "completion": f"{n} " + "c" * 4000, "prompt_index": n} for n in range(1500)
    ]
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    del rows
    stored = Dataset.from_parquet(str(tmp_path / "rows.parquet"), cache_dir=str(tmp_path / "cache"))
    tracemalloc.start()
    answers = Answers([stored])
    batches = sum(len(prompts) for prompts, _ in answers.batches())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert batches == len(answers) == 1500
    assert peak < 3e6, "of 12 MB"
