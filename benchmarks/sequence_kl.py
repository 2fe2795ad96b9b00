"""Where a KL of whole answers and trl's KL of each token's own context lead, on problems that can be enumerated.

    python benchmarks/sequence_kl.py            # seconds; with save=yes the page's numbers

60 problems for each length of an answer: three tokens, of which one ends it, logits of the start and rewards standard
normal, beta 0.3. The first table has fixed points with exact expectations: their total variation from pi_0 exp(r /
beta), the policy that maximises E[r] - beta KL, and what of that objective's gain over the start they miss. The second
has policies learned from samples: 600 steps of Adam on 16 groups of 8 answers each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
import _checkout  # noqa: F401
import stored_numbers
import torch
from torch import Tensor

from trimtab.pipelines.algorithms import tabular_answers
from trimtab.pipelines.algorithms.advantages import still_to_come
from trimtab.pipelines.trainers.rollouts import group_advantages

PROBLEMS, VOCABULARY, BETA = 60, 3, 0.3
GROUPS, GROUP, STEPS, RATE = 16, 8, 600, 0.05
PENALTIES = {"sequence": still_to_come, "token": torch.neg}


def main() -> None:
    rows = []
    for name, penalty in PENALTIES.items():
        for length in (2, 3):
            generator = torch.Generator().manual_seed(length)
            tree = tabular_answers.tree(VOCABULARY, length)
            start = torch.randn(PROBLEMS, tree.size, VOCABULARY, dtype=torch.float64, generator=generator)
            rewards = torch.randn(PROBLEMS, len(tree.mask), dtype=torch.float64, generator=generator)
            logits = {
                "exact": tabular_answers.learned(start, rewards, BETA, tree, penalty, length),
                "drawn": sampled(start, rewards, tree, penalty, generator),
            }
            for how, reached in logits.items():
                row = {"`kl`": f"`{name}`", "tokens": length, "samples": how}
                rows.append(row | distances(reached, start, rewards, tree))
    stored_numbers.show("kl-of-answers", {"policies": rows}, seeds=f"{PROBLEMS} problems a row")


def sampled(start: Tensor, rewards: Tensor, tree: tabular_answers.Tree, penalty: Any, generator: Any) -> Tensor:
    """The logits that Adam comes to on the advantages of sampled answers, as the trainer makes them."""
    reference = tabular_answers.logprobs(start, tree)
    logits = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    length = tree.mask.shape[1]
    for _ in range(STEPS):
        policy = tabular_answers.logprobs(logits, tree)
        draws = torch.multinomial(policy.detach().sum(-1).exp(), GROUPS * GROUP, True, generator=generator)
        places = draws[..., None].expand(-1, -1, length)
        drift = (policy.detach() - reference).gather(1, places)
        gains = group_advantages(rewards.gather(1, draws).reshape(-1, 1), GROUP, "none").reshape(PROBLEMS, -1, 1)
        of_kl = group_advantages(penalty(drift).reshape(-1, length), GROUP, "none").reshape(drift.shape)
        advantages = (gains + BETA * of_kl) * tree.mask[draws]
        loss = -(advantages * policy.gather(1, places)).sum(-1).mean(-1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return logits.detach()


def distances(logits: Tensor, start: Tensor, rewards: Tensor, tree: tabular_answers.Tree) -> dict[str, Any]:
    """How far a policy is from the best one, by problem and for the worst of them."""
    policy, reference = (tabular_answers.logprobs(each, tree).sum(-1) for each in (logits, start))
    best = tabular_answers.optimum(reference, rewards, BETA)
    distance = (policy.exp() - best.exp()).abs().sum(-1) / 2
    at_best, at_start, reached = (
        tabular_answers.objective(each, reference, rewards, BETA) for each in (best, reference, policy)
    )
    missed = (at_best - reached) / (at_best - at_start)
    return {
        "total variation": distance.tolist(),
        "at worst": float(distance.max()),
        "share of the gain missed": missed.tolist(),
        "at worst, of the gain": float(missed.max()),
    }


if __name__ == "__main__":
    main()
