"""Kind `score`: every completion scored by any number of rewards.

    score:
      completions: $sample
      rewards: {helpful: {kind: reward_model, path: $helpful}, brief: {kind: length, target: 40}}

The dataset is that of the completions with a column `scores` (a struct: reward -> score, null where it abstained or
failed). Swapping a reward samples nothing and scores the stored completions with that reward only.

A block may say what a failed completion means. `on_failure: stop` (the default) ends the step with the error; what was
scored is kept, and the same command scores the rest. `abstain` leaves its score out, `skip_group` those of all
completions of its prompt (leaving out single ones biases a policy towards prompts that are easy to score); both stop
when more than `max_failures` (0.05) of all completions have failed. Shares of each outcome are metrics.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from trimtab.pipelines.data import clusters, counting, promises
from trimtab.pipelines.data.clusters import Cluster
from trimtab.pipelines.data.forms import COMPLETIONS, DRAWN, Data, Form
from trimtab.pipelines.data.promises import Promise
from trimtab.pipelines.forecasting.passes import judged
from trimtab.pipelines.forecasting.work import BYTES_OF_TOKEN, Rows, Work
from trimtab.pipelines.planning import schema
from trimtab.pipelines.planning.errors import RecipeError
from trimtab.pipelines.planning.reward_blocks import RewardBlock, cut
from trimtab.pipelines.recording import tracking
from trimtab.pipelines.reporting.shows import Shows
from trimtab.pipelines.scoring import foreseen
from trimtab.pipelines.scoring.scored_rows import with_scores
from trimtab.pipelines.stages import Metrics, Stage
from trimtab.pipelines.training import lineage
from trimtab.rewards import text

if TYPE_CHECKING:
    from trimtab.pipelines.forecasting.known import Known
    from trimtab.pipelines.planning.recipe import Step


@dataclass(kw_only=True)
class Score(Stage):
    """`batch_size` is completions per call of a reward: what a killed run may have to score again.

    With `ray` the workers of a Ray cluster call the rewards; each loads its own, and the scores are the same.
    """

    completions: Annotated[Data, COMPLETIONS]
    rewards: dict[str, RewardBlock]
    batch_size: int = 256
    ray: Cluster | None = None

    neutral: ClassVar[tuple[str, ...]] = ("ray",)
    writes: ClassVar[tuple[str, ...]] = (*DRAWN, "scores")
    shows: ClassVar[Shows] = Shows(results=("rewards/*/mean",), section="completions")

    def reads(self) -> dict[str, Form]:
        grouped = any(block.get("on_failure") == "skip_group" for block in self.rewards.values())
        return {"completions": COMPLETIONS.where("prompt_index") if grouped else COMPLETIONS}

    def check(self, step: Step) -> None:
        if not self.rewards:
            raise RecipeError("name at least one reward", (*step.path, "rewards"))
        if self.batch_size < 1:
            raise RecipeError(f"must be at least 1, got {self.batch_size}", (*step.path, "batch_size"))
        if self.ray is not None:
            clusters.check((*step.path, "ray"))
        super().check(step)
        foreseen.check(step, self.rewards, self.completions, lineage.ahead)

    def work(self, known: Known) -> Work:
        rows, judges = known.rows("completions"), known.rewards(self.rewards)
        passes = tuple(judged(judge.model, rows, rows.count) for judge in judges)
        size = rows.count * BYTES_OF_TOKEN * float(rows.tokens.mean())
        return Work(
            "models" if judges else "rows",
            tuple(judges[:1]),
            passes,
            handled=rows.count * len(self.rewards),
            leaves=size,
        )

    def promise(self, step: Step, folder: str, split: str) -> Promise:
        return replace(promises.of(self.completions, step), rewards=tuple(self.rewards))

    def leaves(self, known: Known, folder: str, split: str) -> Rows:
        return known.rows("completions")

    def run(self, step: Step) -> Metrics:
        from accelerate.utils import release_memory

        from trimtab.pipelines.data.writing import write_rows
        from trimtab.pipelines.scoring import journal

        rows = counting.rows(self.completions, step, "completions")
        groups = rows["prompt_index"][:] if "prompt_index" in rows.column_names else None
        loaded = {}
        for name, block in self.rewards.items():
            place = (*step.path, "rewards", name)  # with a cluster, its workers load it
            loaded[name] = None if self.ray else schema.load_reward(cut(block).reward, place)
        scores: dict[str, list[float | None]] = {}
        metrics: dict[str, float] = {}
        for name, block in self.rewards.items():
            # its weights leave the memory with it, unless a reward to come shares them
            scored = journal.score(step, name, loaded.pop(name), rows, self.batch_size, self.ray)
            scores[name] = scored.settled(block.get("on_failure", "stop"), groups)
            metrics |= scored.summary(name, scores[name])
            release_memory()
        scored_rows = with_scores(rows, scores)
        write_rows(step, scored_rows)
        tracking.table("scores", [_shown(row) for row in scored_rows.select(range(min(20, len(rows))))])
        return metrics


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {"prompt": text(row["prompt"]), "completion": text(row["completion"]), **row["scores"]}
