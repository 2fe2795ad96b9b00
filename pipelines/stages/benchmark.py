"""Kind `benchmark`: policies on several tasks that can be verified, greedy and by choosing among samples.

    benchmark:
      policies: {sft: $sft, grpo: $grpo}
      tasks:
        gsm8k: {prompts: {path: openai/gsm8k, name: main, split: test, layout: gsm8k}, right: {kind: math}}
        mbpp: {prompts: {path: mbpp, split: test, layout: mbpp}, right: {kind: code, score: all}, votes: false}
      reward: {kind: reward_model, path: $judge}      # what chooses, for RM@n; may be left out
      num_generations: 8
      n: [1, 8]

A macro: of every policy and task the greedy answers and `num_generations` samples, scored by the task's `right` and by
`reward`, what choosing among them gives (`best_of`), and a `scoreboard` of all. `votes: false` is for answers of which
no two are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from trimtab.pipelines.data.forms import PROMPTS, Data
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.field_types import KeysOf, ModelName
from trimtab.pipelines.planning.reward_blocks import RewardBlock
from trimtab.pipelines.sampling.settings import Sampling, greedy
from trimtab.pipelines.stages import Stage, StepOptions

if TYPE_CHECKING:
    from trimtab.pipelines.shrinking.miniature import Miniature


@dataclass(kw_only=True)
class Task:
    """Prompts, and the reward that verifies an answer to one of them."""

    prompts: Annotated[Data, PROMPTS]
    right: RewardBlock
    votes: bool = True


@dataclass(kw_only=True)
class Benchmark(Sampling, Stage):
    """`model` holds trl.ModelConfig keys for all policies; a task has `prompts`, `right` and `votes`."""

    policies: dict[str, ModelName]
    tasks: dict[str, dict[str, Any]]
    reward: RewardBlock | None = None
    num_generations: int = 8
    n: list[int] = field(default_factory=lambda: [1, 8])
    model: Annotated[dict[str, Any], KeysOf(("trl.ModelConfig",))] = field(default_factory=dict)

    @classmethod
    def small(cls, block: Mapping[str, Any], miniature: Miniature) -> dict[str, Any]:
        changes = {**super().small(block, miniature), "n": [1, 2]}
        for name, task in block["tasks"].items():
            changes |= {f"tasks.{name}.{key}": value for key, value in miniature.changes(Task, task).items()}
        return changes

    @classmethod
    def expand(cls, name: str, kind: str, options: dict[str, Any], above: tuple[str, ...]) -> Iterator[StepOptions]:
        macro = cls.as_written(name, options)
        if max(macro.n, default=0) > macro.num_generations:
            counts = f"{max(macro.n)} are chosen among, and {macro.num_generations} are drawn"
            raise RecipeError(f"{counts}: raise `num_generations`", ("stages", name, "n"))
        sampling = cls.handed_on(options)
        board: dict[str, dict[str, str]] = {}
        for task_name, block in macro.tasks.items():
            task = schema.as_written(Task, block, ("stages", name, "tasks", task_name))
            board[task_name] = {}
            for policy, weights in macro.policies.items():
                of_both = f"{name}-{task_name}-{policy}"
                model = {**macro.model, "model_name_or_path": weights}
                asking = {"model": model, "prompts": task.prompts, **sampling}
                yield from macro._measured(of_both, task, asking)
                board[task_name][policy] = f"${of_both}-best"
        yield name, "scoreboard", {"tasks": board}

    def _measured(self, name: str, task: Task, asking: dict[str, Any]) -> Iterator[StepOptions]:
        """The steps of one policy on one task."""
        rewards = {"right": task.right, **({"reward": self.reward} if self.reward else {})}
        for drawn, settings in (("sample", asking), ("greedy", greedy(asking))):
            yield f"{name}-{drawn}", "sample", settings
            yield f"{name}-{drawn}-score", "score", {"completions": f"${name}-{drawn}", "rewards": rewards}
        choosing = {"completions": f"${name}-sample-score", "greedy": f"${name}-greedy-score", "gold": "right"}
        by_reward = {"reward": "reward"} if self.reward else {}
        yield f"{name}-best", "best_of", {**choosing, **by_reward, "n": self.n, "votes": task.votes}
