"""Completions scored by one reward, row by row on disk: what was scored is never scored again.

Scores stand in `runs/steps/scored/<reward>-<key>/`, the key being that of completions and reward, so they
outlive the step that asked for them: a step with one more reward, or with another policy for failures, finds them.
Work is cut into batches of all rows, whatever is missing of a batch is one call of the reward, and rank r takes every
`ranks`-th batch. Failures are written down too, and tried again by the next launch. Every line has a checksum: one
that a kill has torn, or that a disk has damaged, is no line, and its row is scored again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import statistics
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab import rewards
from trimtab.pipelines.planning import reward_blocks
from trimtab.pipelines.planning.files import fingerprint
from trimtab.pipelines.planning.store import SCORED
from trimtab.pipelines.recording import locks, watch
from trimtab.rewards import Outcome, Reward, RewardFailure

if TYPE_CHECKING:
    from datasets import Dataset

    from trimtab.pipelines.planning.recipe import Step

PERCENTILES = (50, 95, 99)  # of the seconds that requests have taken
logger = logging.getLogger(__name__)


@dataclass
class Scores:
    """What a reward said: `outcomes` per row, `extra` columns and `metrics` that it logged by itself.

    `waits` are the seconds that each request of this launch to a remote one has taken.
    """

    outcomes: list[Outcome]
    extra: dict[str, dict[int, float]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)
    waits: Sequence[float] = ()

    def settled(self, policy: str, groups: Sequence[int] | None) -> list[float | None]:
        """The scores with null for what abstained or failed; with `skip_group`, for the whole prompt of a failure."""
        scores = [None if isinstance(outcome, RewardFailure) else outcome for outcome in self.outcomes]
        if policy != "skip_group" or groups is None:
            return scores
        failed = {group for group, outcome in zip(groups, self.outcomes, strict=True) if _is_failure(outcome)}
        return [None if group in failed else score for group, score in zip(groups, scores, strict=True)]

    def summary(self, name: str, settled: Sequence[float | None]) -> dict[str, float]:
        """Shares of each outcome, and the distribution of the scores, as metrics."""
        count = len(settled)
        given = [score for score in settled if score is not None]
        failed = sum(map(_is_failure, self.outcomes))
        abstained = sum(outcome is None for outcome in self.outcomes)
        metrics = {"scored": len(given) / count, "abstained": abstained / count, "failed": failed / count}
        if skipped := count - len(given) - failed - abstained:
            metrics["skipped"] = skipped / count
        if given:
            metrics |= {"mean": statistics.fmean(given), "std": statistics.pstdev(given)}
        for column, values in self.extra.items():
            metrics[f"{column}/mean"] = statistics.fmean(values.values())
        metrics |= {metric: statistics.fmean(values) for metric, values in self.metrics.items()}
        metrics |= _quantiles(self.waits)
        return {f"rewards/{name}/{key}": value for key, value in metrics.items()}


def _quantiles(waits: Sequence[float]) -> dict[str, float]:
    """The seconds that half of the requests have stayed below, and 95 and 99 of 100."""
    if not waits:
        return {}
    import numpy as np

    seconds = np.percentile(waits, PERCENTILES).tolist()
    return {f"wait_seconds/p{share}": wait for share, wait in zip(PERCENTILES, seconds, strict=True)}


def _is_failure(outcome: Outcome) -> bool:
    return isinstance(outcome, RewardFailure)


def score(step: Step, name: str, reward: Reward, rows: Dataset, batch_size: int) -> Scores:
    """All rows' outcomes; every rank calls it. What another process scores at this moment is waited for.

    Raises RewardFailure where the block's `on_failure` says stop, or when more than its `max_failures` have failed;
    what was scored by then is kept.
    """

    def told(holder: str) -> None:
        logger.warning("%s: %s is asked the same by %s. Waiting until that ends", step.name, name, holder)

    lock = locks.Lock(locks.of_folder(_folder(step, name)), f"{step.recipe}/{step.name}")
    with locks.held(lock, told, locks.of_main):
        return _score(step, name, reward, rows, batch_size)


def _score(step: Step, name: str, reward: Reward, rows: Dataset, batch_size: int) -> Scores:
    """Asks for what is missing, while no other process does."""
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    distributed = PartialState()
    journal = Journal(_folder(step, name), name, distributed.process_index)
    scored = journal.read(len(rows), failures=False)
    batches = [range(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    missing = [[row for row in batch if row not in scored] for batch in batches]
    mine = [batch for batch in missing if batch][distributed.process_index :: distributed.num_processes]
    distributed.wait_for_everyone()  # until everyone has read, nobody writes
    block = step.options["rewards"][name]
    stop = block.get("on_failure", "stop") == "stop"
    allowed = 0 if stop else max(1, int(block.get("max_failures", reward_blocks.MAX_FAILURES) * len(rows)))
    failed = 0
    total, hidden = sum(map(len, mine)), not distributed.is_main_process
    bar = tqdm(desc=f"{step.name} {name}", total=total, leave=False, mininterval=1, disable=hidden)
    with bar, journal:
        for batch in mine:
            with watch.part(f"in reward {name}, rows {batch[0]} to {batch[-1]}"):
                said = ask(reward, name, rows.select(batch), batch)
            outcomes = journal.record(batch, *said)
            failures = [outcome for outcome in outcomes if isinstance(outcome, RewardFailure)]
            failed += len(failures)
            bar.update(len(batch))
            if failed > allowed:
                kept = len(journal.read(len(rows), failures=False))
                raise _stopped(failures[0], failed, kept, len(rows), limited=not stop)
            for failure in failures[:3]:
                logger.warning("%s", failure)
    distributed.wait_for_everyone()
    return replace(journal.collect(len(rows)), waits=gather_object(getattr(reward, "waits", [])))


def ask(reward: Reward, name: str, rows: Dataset, indices: Sequence[int]) -> tuple[list[Outcome], dict, dict]:
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
        log_extra=lambda column, values: extra.__setitem__(column, list(values)),
        log_metric=metrics.__setitem__,
    )
    return outcomes, extra, metrics


class Journal:
    """Outcomes as JSON lines, one file per rank, appended and flushed batch by batch."""

    def __init__(self, folder: Path, name: str, rank: int):
        self.folder, self.name, self.path = folder, name, folder / f"rank-{rank}.jsonl"

    def __enter__(self) -> Journal:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.path.open("a")
        self.file.write("\n")  # after a line that a killed process left torn
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def record(
        self, rows: Sequence[int], outcomes: list[Outcome], extra: Mapping[str, list], metrics: Mapping[str, float]
    ) -> list[Outcome]:
        """Writes one call's outcomes and returns them."""
        lines: list[dict[str, Any]] = []
        for place, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
            if isinstance(outcome, RewardFailure):
                lines.append({"row": row, "failure": outcome.reason, "sample": outcome.sample})
                continue
            lines.append({"row": row, "score": outcome})
            logged = {column: values[place] for column, values in extra.items() if place < len(values)}
            if numbers := {column: value for column, value in logged.items() if isinstance(value, int | float)}:
                lines[-1]["extra"] = numbers
        lines += [{"metric": metric, "value": float(value)} for metric, value in metrics.items()]
        self.file.write("".join(json.dumps({**line, "check": _checksum(line)}) + "\n" for line in lines))
        self.file.flush()
        os.fsync(self.file.fileno())
        return outcomes

    def lines(self) -> Iterable[dict[str, Any]]:
        """Every whole line of all ranks."""
        for path in sorted(self.folder.glob("*.jsonl")):
            with path.open("rb") as file:
                for written in file:
                    with contextlib.suppress(ValueError, AttributeError, TypeError):  # torn or damaged
                        line = json.loads(written)
                        if line.pop("check", None) == _checksum(line):
                            yield line

    def read(self, count: int, *, failures: bool = True) -> dict[int, Outcome]:
        """The outcome of every row below `count` that has one; a score stands above any failure."""
        outcomes: dict[int, Outcome] = {}
        for line in self.lines():
            row = line.get("row", count)
            if row < count and "score" in line:
                outcomes[row] = line["score"]
            elif row < count and failures:
                failure = RewardFailure(line["failure"], reward=self.name, index=row, sample=line["sample"])
                outcomes.setdefault(row, failure)
        return outcomes

    def collect(self, count: int) -> Scores:
        """Everything that was written. Call it when all ranks are done."""
        outcomes = self.read(count)
        scores = Scores([outcomes[row] for row in range(count)], defaultdict(dict), defaultdict(list))
        for line in self.lines():
            for column, value in line.get("extra", {}).items():
                scores.extra[column][line["row"]] = value
            if "metric" in line:
                scores.metrics[line["metric"]].append(line["value"])
        return scores


def _checksum(line: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(line).encode())


def _folder(step: Step, name: str) -> Path:
    options = step.identity["options"]
    rows = options["completions"] if "completions" in options else {"answers of": options["data"]}
    reward = {key: value for key, value in options["rewards"][name].items() if key not in reward_blocks.POLICY}
    return step.dir.parent / SCORED / f"{name}-{fingerprint([rows, reward])}"


def _stopped(first: RewardFailure, failed: int, scored: int, rows: int, *, limited: bool) -> RewardFailure:
    """The first failure, with how many there were and what is left to do."""
    limit = "more than `max_failures` allows" if limited else "`on_failure` is stop"
    kept = f"{scored} of {rows} are scored and kept: the same command goes on from there"
    reason = f"{first.reason}\n{failed} failed ({limit}); {kept}"
    return first.reworded(reason)
