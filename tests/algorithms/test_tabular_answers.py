"""The KL of whole answers: the policy that its gradient leads to, by exact expectations and by samples."""

import math

import pytest
import torch

from trimtab.pipelines.algorithms import tabular_answers
from trimtab.pipelines.algorithms.advantages import still_to_come
from trimtab.pipelines.trainers.rollouts import group_advantages

PROBLEMS, BETA, GROUP = 60, 0.3, 8


def problems(length, vocabulary=3):
    """The tree, starts (60, places, V) and rewards of answers (60, M)."""
    generator = torch.Generator().manual_seed(length)
    tree = tabular_answers.tree(vocabulary, length)
    start = torch.randn(PROBLEMS, tree.size, vocabulary, dtype=torch.float64, generator=generator)
    rewards = torch.randn(PROBLEMS, len(tree.mask), dtype=torch.float64, generator=generator)
    return tree, start, rewards


def variation(logps, other):
    """Total variation between policies over answers (60, M), one number for each problem."""
    return (logps.exp() - other.exp()).abs().sum(-1) / 2


def of_answers(logits, tree):
    return tabular_answers.logprobs(logits, tree).sum(-1)


def test_a_tree_has_every_answer_once():
    tree = tabular_answers.tree(3, 2)
    answers = [row[mask.bool()].tolist() for row, mask in zip(tree.tokens, tree.mask, strict=True)]
    assert sorted(answers) == [[0], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]]
    probabilities = of_answers(torch.randn(5, tree.size, 3, dtype=torch.float64), tree).exp()
    assert probabilities.sum(-1).tolist() == pytest.approx([1] * 5)


def test_what_is_still_to_come_ends_with_the_answer():
    drift = torch.tensor([[1.0, -2.0, 4.0], [3.0, 0.5, 0.0]])
    assert still_to_come(drift).tolist() == [[-3.0, -2.0, -4.0], [-3.5, -0.5, 0.0]]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_the_kl_of_answers_leads_to_the_optimum(length):
    tree, start, rewards = problems(length)
    best = tabular_answers.optimum(of_answers(start, tree), rewards, BETA)
    logits = tabular_answers.learned(start, rewards, BETA, tree, still_to_come, length)
    assert variation(of_answers(logits, tree), best).max() < 1e-12
    once_more = tabular_answers.learned(start, rewards, BETA, tree, still_to_come, length + 1)
    torch.testing.assert_close(once_more, logits, atol=1e-12, rtol=0)
    own = tabular_answers.learned(start, rewards, BETA, tree, torch.neg, length)  # each token its own context's alone
    assert (variation(of_answers(own, tree), best).mean() > 0.05) == (length > 1)


def drawn_advantages(policy, reference, rewards, tree, groups, generator):
    """Answers drawn by each problem's policy (60, N), and the advantages (60, N, T) that the trainer makes of them."""
    draws = torch.multinomial(policy.sum(-1).exp(), groups * GROUP, replacement=True, generator=generator)
    drift = (policy - reference).gather(1, draws[..., None].expand(-1, -1, policy.shape[-1]))
    of_rewards = group_advantages(rewards.gather(1, draws).reshape(-1, 1), GROUP, "none").reshape(PROBLEMS, -1, 1)
    to_come = still_to_come(drift).reshape(-1, policy.shape[-1])
    of_kl = group_advantages(to_come, GROUP, "none").reshape(drift.shape)
    return draws, (of_rewards + BETA * of_kl) * tree.mask[draws]


def test_sampled_gradients_are_those_of_the_objective():
    """All coordinates of 60 gradients, in standard errors: their squares are as large as chance has them."""
    tree, start, rewards = problems(2)
    generator = torch.Generator().manual_seed(0)
    reference = tabular_answers.logprobs(start, tree)
    logits = (start + torch.randn(start.shape, dtype=start.dtype, generator=generator)).requires_grad_()
    policy = tabular_answers.logprobs(logits, tree)
    exact = torch.autograd.grad(
        tabular_answers.objective(policy.sum(-1), reference.sum(-1), rewards, BETA).sum(), logits, retain_graph=True
    )[0] * (1 - 1 / GROUP)  # an answer is in its own baseline
    estimates = []
    for _ in range(30):
        draws, advantages = drawn_advantages(policy.detach(), reference, rewards, tree, 16, generator)
        steps = policy.gather(1, draws[..., None].expand(-1, -1, 2))
        gain = (advantages * steps).sum(-1).mean(-1).sum()
        estimates.append(torch.autograd.grad(gain, logits, retain_graph=True)[0])
    estimates = torch.stack(estimates)
    z = ((estimates.mean(0) - exact) / (estimates.std(0) / math.sqrt(30))).flatten()
    assert z.square().mean() == pytest.approx(29 / 27, abs=0.25)  # t with 29 degrees of freedom
    assert z.abs().max() < 6


def test_samples_lead_to_the_optimum():
    """Within a tenth of how far trl's term of the loss ends from it."""
    tree, start, rewards = problems(2)
    generator = torch.Generator().manual_seed(1)
    reference = tabular_answers.logprobs(start, tree)
    best = tabular_answers.optimum(reference.sum(-1), rewards, BETA)
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 600)
    for _ in range(600):
        policy = tabular_answers.logprobs(logits, tree)
        draws, advantages = drawn_advantages(policy.detach(), reference, rewards, tree, 16, generator)
        gain = (advantages * policy.gather(1, draws[..., None].expand(-1, -1, 2))).sum(-1).mean(-1).sum()
        optimizer.zero_grad()
        (-gain).backward()
        optimizer.step()
        schedule.step()
    own = tabular_answers.learned(start, rewards, BETA, tree, torch.neg, 2)
    distance = variation(of_answers(logits.detach(), tree), best).mean()
    assert distance < 0.1 * variation(of_answers(own, tree), best).mean()
