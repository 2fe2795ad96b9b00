"""The search for thresholds as it runs beside a training: when it evaluates, and what it says."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from trimtab.pipelines.algorithms.searching import Searching


class SearchThresholds(TrainerCallback):
    """Evaluates when the policy has come to the thresholds that are tried, and says what was found and decided."""

    def __init__(self, objective: Searching):
        self.objective = objective

    def on_train_begin(self, args, state, control, **kwargs):
        self.objective.begin(state.max_steps)

    def on_step_end(self, args, state, control, **kwargs):
        control.should_evaluate = control.should_evaluate or self.objective.asks
        self._say(state)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        if self.objective.asks and state.global_step:
            self.objective.tell(metrics[f"eval_rewards/{self.objective.settings.metric}/mean"])
        self._say(state)

    def _say(self, state: Any) -> None:
        for words in self.objective.decisions:
            if state.is_world_process_zero:
                print(f"    thresholds, step {state.global_step}: {words}", flush=True)
        self.objective.decisions.clear()
