"""Preferences from scores, and the likelihood of rankings in closed form."""

import math
from itertools import permutations

import pytest
import torch

from trimtab.pipelines.algorithms import preference


def test_plackett_luce_probabilities_of_all_rankings_sum_to_one():
    rewards = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = sum(
        math.exp(-preference.plackett_luce(rewards[list(order)][None]).item()) for order in permutations(range(4))
    )
    assert total == pytest.approx(1, abs=1e-12)


def test_plackett_luce_of_two_is_bradley_terry():
    rewards = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    expected = -torch.nn.functional.logsigmoid(rewards[0, 0] - rewards[0, 1]).item()
    assert preference.plackett_luce(rewards).item() == pytest.approx(expected, abs=1e-12)


def test_plackett_luce_by_hand_with_a_missing_answer():
    r = torch.tensor([[2.0, 1.0, 0.0, -torch.inf]], dtype=torch.float64, requires_grad=True)
    e = [math.exp(x) for x in (2, 1, 0)]
    expected = -math.log(e[0] / sum(e)) - math.log(e[1] / (e[1] + e[2]))
    loss = preference.plackett_luce(r)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.sum().backward()
    assert torch.isfinite(r.grad[:, :3]).all()


def test_pairs_from_scores():
    assert preference.best_worst([0.1, 0.9, -1.0]) == [(1, 2)]
    assert preference.best_worst([1.0]) == preference.best_worst([]) == []
    assert preference.all_pairs([0.1, 0.9, -1.0]) == [(1, 0), (0, 2), (1, 2)]
    assert preference.ranking([0.1, 0.9, 0.1]) == [1, 0, 2]


def test_a_drawn_pair_is_ordered_random_and_reproducible():
    scores = [0.3, -1.0, 2.0, 0.5]
    drawn = [preference.drawn_pair(scores, f"1-{i}")[0] for i in range(400)]
    assert all(scores[better] > scores[worse] for better, worse in drawn)
    assert len(set(drawn)) == 6  # every pair comes up
    assert drawn == [preference.drawn_pair(scores, f"1-{i}")[0] for i in range(400)]
    assert preference.drawn_pair([1.0], "1") == []
