"""On-policy distillation whose rollouts are drawn by seeds of their own, and go on from any checkpoint."""

from __future__ import annotations

import trl

from trimtab.pipelines.trainers.seeded_rollouts import SeededRollouts


class DistillationTrainer(SeededRollouts, trl.DistillationTrainer):
    """trl.DistillationTrainer, which makes a rollout for each optimizer step and learns from it once."""

    use_transformers_continuous_batching = False  # of which it has no key

    def batches_of_rollout(self) -> int:
        return self.args.gradient_accumulation_steps

    def micro_batches_of_rollout(self) -> int:
        return self.batches_of_rollout()

    def handed_back(self, completions: list[list[int]]) -> list[list[int]]:
        return completions
