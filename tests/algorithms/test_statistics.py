"""Means, intervals, win rates and diversity against closed forms and by hand."""

import math
import random

import numpy as np
import pytest

from trimtab.pipelines.algorithms import statistics


def test_mean_and_standard_error():
    mean, stderr = statistics.mean_stderr([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert stderr == pytest.approx(math.sqrt(5 / 3) / 2)
    assert math.isnan(statistics.mean_stderr([1.0])[1])


def test_wilson_interval():
    low, high = statistics.wilson(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)  # textbook value
    assert statistics.wilson(1.0, 10)[1] == pytest.approx(1.0)
    assert statistics.wilson(1.0, 10)[0] < 0.75
    rng = np.random.default_rng(0)
    draws = rng.binomial(50, 0.3, size=4000) / 50
    covered = [low <= 0.3 <= high for low, high in (statistics.wilson(rate, 50) for rate in draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_distinct_n():
    assert statistics.distinct(["a b a", "a b"], 1) == pytest.approx(2 / 5)
    assert statistics.distinct(["a b a", "a b"], 2) == pytest.approx(2 / 3)
    assert statistics.distinct(["a"], 2) == 0.0


def test_distinct_is_the_same_however_many_n_grams_wait(monkeypatch):
    texts = [" ".join(random.Random(seed).choices("abcdefgh", k=20)) for seed in range(50)]
    whole = statistics.distinct(texts, 2)
    monkeypatch.setattr(statistics, "GRAMS", 7)
    assert statistics.distinct(iter(texts), 2) == whole


def test_groups_count_alike_whatever_their_size():
    numbers = statistics.grouped([1.0, 3.0, None, 5.0, None], [0, 0, 0, 1, 2])
    assert numbers == {"mean": 3.5, "stderr": pytest.approx(1.5)}
    assert statistics.grouped([None], [0]) == {}


def test_similarity_is_of_word_pairs():
    assert statistics.similarity(["a b c", "a b c"]) == 1
    assert statistics.similarity(["a b c", "b c d"]) == pytest.approx(1 / 3)
    assert statistics.similarity(["a", "a"]) == 1
    assert statistics.similarity(["a b"]) is None


def test_a_weighted_sum_needs_every_score():
    assert statistics.weighted({"r": 2.0, "s": 1.0, "t": None}, {"r": 0.5, "s": -1.0}) == 0
    assert statistics.weighted({"r": None, "s": 1.0}, {"r": 0.5, "s": 1.0}) is None
