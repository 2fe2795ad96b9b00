"""Calls of a reward for batches of completions, in this process or in those of a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtab import rewards
from trimtab.pipelines.data import clusters
from trimtab.pipelines.planning import reward_blocks, schema
from trimtab.pipelines.recording import watch
from trimtab.rewards import Outcome, Reward, _foreign_json

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.data.clusters import Cluster
    from trimtab.pipelines.planning.recipe import Step

Said = tuple[list[Outcome], dict[str, list], dict[str, float]]  # the outcomes, extra columns and metrics
Batch = Sequence[int]  # numbers of rows


def batches(
    step: Step, name: str, reward: Reward | None, rows: Dataset, asked: Sequence[Batch], cluster: Cluster | None
) -> Iterator[tuple[Batch, Said]]:
    """What the reward says of each batch, with the batch; in a cluster each worker has a reward of its own."""
    if cluster is None:
        assert reward is not None
        for batch in asked:
            with watch.part(f"in reward {name}, rows {batch[0]} to {batch[-1]}"):
                said = ask(reward, name, rows.select(batch), batch)
            yield batch, said
    elif asked:
        work = _Scorer(step.options["rewards"][name], (*step.path, "rewards", name), name, rows, asked)
        for number, said in clusters.results(cluster, range(len(asked)), work):
            yield asked[number], said


@dataclass
class _Scorer:
    """Calls a reward for a batch, by its number; the reward is loaded with the first one."""

    block: Mapping[str, Any]
    path: tuple[str, ...]
    name: str
    rows: Dataset
    asked: Sequence[Batch]
    reward: Reward | None = None

    def __call__(self, number: int) -> Said:
        if self.reward is None:
            self.reward = schema.load_reward(reward_blocks.cut(self.block).reward, self.path)
        return ask(self.reward, self.name, self.rows.select(self.asked[number]), self.asked[number])


def ask(reward: Reward, name: str, rows: Dataset, indices: Batch) -> Said:
    """One call of a reward with TRL's keywords: the outcomes, and the extra columns and metrics that it logs."""
    from transformers import TrainerState

    columns = {key: rows[key] for key in rows.column_names if key not in ("prompt", "completion", "scores")}
    extra: dict[str, list] = {}
    metrics: dict[str, float] = {}
    outcomes = rewards.outcomes(
        reward,
        rows["prompt"][:],
        rows["completion"][:],
        name=name,
        indices=indices,
        **{key: values[:] for key, values in columns.items()},
        trainer_state=TrainerState(),
        log_extra=lambda column, values: extra.__setitem__(column, _foreign_json.whole(list(values))),
        log_metric=metrics.__setitem__,
    )
    return outcomes, extra, metrics
