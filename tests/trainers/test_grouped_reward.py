"""The loss over all pairs of right and wrong answers, against its definition."""

import pytest
import torch

from trimtab.pipelines.trainers.grouped_reward import GroupCollator, GroupedRewardTrainer

ROWS = [
    {"ranked_ids": [[1, 2], [3], [4, 5, 6], [7]], "completion_scores": [1.0, 1.0, 0.0, 0.0]},
    {"ranked_ids": [[1], [2, 3]], "completion_scores": [2.0, 0.5]},
    {"ranked_ids": [[1], [2], [3]], "completion_scores": [3.0, 2.0, 1.0]},
]


@pytest.fixture
def batch():
    return GroupCollator(0)(ROWS)


@pytest.fixture
def trainer():
    return object.__new__(GroupedRewardTrainer)


def test_a_prompt_loses_the_mean_over_its_pairs(batch, trainer):
    rewards = torch.randn(3, 4).where(batch["present"], -torch.inf)
    losses = trainer.losses(rewards, batch)
    for row, loss, of_row in zip(ROWS, losses, rewards, strict=True):
        scores = row["completion_scores"]
        pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if scores[i] > scores[j]]
        expected = [-torch.nn.functional.logsigmoid(of_row[i] - of_row[j]) for i, j in pairs]
        assert loss == pytest.approx(sum(expected) / len(pairs))
    assert trainer.pairs(batch).sum((1, 2)).tolist() == [4, 1, 3]


def test_only_differences_count_and_missing_answers_have_no_gradient(batch, trainer):
    rewards = torch.randn(3, 4, dtype=torch.float64).where(batch["present"], -torch.inf).requires_grad_()
    losses = trainer.losses(rewards, batch)
    torch.testing.assert_close(trainer.losses(rewards + 3, batch), losses)
    losses.sum().backward()
    torch.testing.assert_close(rewards.grad.sum(1), torch.zeros(3, dtype=torch.float64))
    assert not rewards.grad[~batch["present"]].any()
