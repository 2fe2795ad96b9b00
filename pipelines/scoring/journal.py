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
import math
import os
import statistics
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.pipelines.algorithms.statistics import mean_stderr
from trimtab.pipelines.planning import reward_blocks
from trimtab.pipelines.planning.files import fingerprint
from trimtab.pipelines.planning.store import SCORED
from trimtab.pipelines.recording import locks
from trimtab.pipelines.scoring import asking
from trimtab.rewards import Outcome, Reward, RewardFailure

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from trimtab.pipelines.data.clusters import Cluster
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
            metrics[f"{column}/mean"], stderr = mean_stderr(list(values.values()))
            if math.isfinite(stderr):
                metrics[f"{column}/stderr"] = stderr
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


def score(
    step: Step,
    name: str,
    reward: Reward | None,
    rows: Dataset,
    batch_size: int,
    cluster: Cluster | None = None,
    *,
    of: Any = None,
) -> Scores:
    """All rows' outcomes; every rank calls it. What another process scores at this moment is waited for.

    `of` says what the rows are made from, where they are not the step's `completions`.

    With a `cluster` its workers make the calls, with rewards of their own, and the main rank keeps what they say.

    Raises RewardFailure where the block's `on_failure` says stop, or when more than its `max_failures` have failed;
    what was scored by then is kept.
    """

    def told(holder: str) -> None:
        logger.warning("%s: %s is asked the same by %s. Waiting until that ends", step.name, name, holder)

    folder = _folder(step, name, of)
    lock = locks.Lock(locks.of_folder(folder), f"{step.recipe}/{step.name}")
    with locks.held(lock, told, locks.of_main):
        return _score(step, name, reward, rows, batch_size, cluster, folder)


def _score(
    step: Step,
    name: str,
    reward: Reward | None,
    rows: Dataset,
    batch_size: int,
    cluster: Cluster | None,
    folder: Path,
) -> Scores:
    """Asks for what is missing, while no other process does."""
    from accelerate import PartialState
    from accelerate.utils import gather_object
    from tqdm.auto import tqdm

    distributed = PartialState()
    journal = Journal(folder, name, distributed.process_index)
    missing = _missing(journal.scored(len(rows)), batch_size)
    mine = missing[distributed.process_index :: distributed.num_processes]
    if cluster is not None:
        mine = missing if distributed.is_main_process else []
    distributed.wait_for_everyone()  # until everyone has read, nobody writes
    block = step.options["rewards"][name]
    stop = block.get("on_failure", "stop") == "stop"
    allowed = 0 if stop else max(1, int(block.get("max_failures", reward_blocks.MAX_FAILURES) * len(rows)))
    failed = 0
    total, hidden = sum(map(len, mine)), None if distributed.is_main_process else True
    bar = tqdm(desc=f"    {step.name}, {name}", total=total, leave=False, mininterval=1, disable=hidden)
    with bar, journal:
        for batch, said in asking.batches(step, name, reward, rows, mine, cluster):
            outcomes = journal.record(batch, *said)
            failures = [outcome for outcome in outcomes if isinstance(outcome, RewardFailure)]
            failed += len(failures)
            bar.update(len(batch))
            if failed > allowed:
                kept = int(journal.scored(len(rows)).sum())
                raise _stopped(failures[0], failed, kept, len(rows), limited=not stop)
            for failure in failures[:3]:
                logger.warning("%s", failure)
    distributed.wait_for_everyone()
    return replace(journal.collect(len(rows)), waits=gather_object(getattr(reward, "waits", [])))


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

    def scored(self, count: int) -> np.ndarray:
        """Whether each row below `count` has a score: one byte a row, as there may be many millions."""
        import numpy as np

        there = np.zeros(count, dtype=bool)
        for line in self.lines():
            if "score" in line and line["row"] < count:
                there[line["row"]] = True
        return there

    def collect(self, count: int) -> Scores:
        """Everything that was written; a score stands above any failure. Call it when all ranks are done."""
        unheard = object()
        outcomes: list[Any] = [unheard] * count
        scores = Scores(outcomes, defaultdict(dict), defaultdict(list))
        for line in self.lines():
            row = line.get("row", count)
            if row < count and "score" in line:
                outcomes[row] = line["score"]
            elif row < count and outcomes[row] is unheard:
                outcomes[row] = RewardFailure(line["failure"], reward=self.name, index=row, sample=line["sample"])
            for column, value in line.get("extra", {}).items():
                scores.extra[column][row] = value
            if "metric" in line:
                scores.metrics[line["metric"]].append(line["value"])
        missing = outcomes.count(unheard)
        if missing:
            raise RuntimeError(f"{self.folder} has no outcome of {missing} of {count} rows")
        return scores


def _missing(scored: np.ndarray, batch_size: int) -> list[Sequence[int]]:
    """The rows that are to be scored, in batches of all rows; a batch that is missing as a whole is a range."""
    batches: list[Sequence[int]] = []
    for start in range(0, len(scored), batch_size):
        there = scored[start : start + batch_size]
        if not there.any():
            batches.append(range(start, start + len(there)))
        elif not there.all():
            batches.append([start + int(place) for place in (~there).nonzero()[0]])
    return batches


def _checksum(line: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(line).encode())


def _folder(step: Step, name: str, of: Any = None) -> Path:
    options = step.identity["options"]
    rows = options["completions"] if of is None else of
    reward = {key: value for key, value in options["rewards"][name].items() if key not in reward_blocks.POLICY}
    return step.dir.parent / SCORED / f"{name}-{fingerprint([rows, reward])}"


def _stopped(first: RewardFailure, failed: int, scored: int, rows: int, *, limited: bool) -> RewardFailure:
    """The first failure, with how many there were and what is left to do."""
    limit = "more than `max_failures` allows" if limited else "`on_failure` is stop"
    kept = f"{scored} of {rows} are scored and kept: the same command goes on from there"
    reason = f"{first.reason}\n{failed} failed ({limit}); {kept}"
    return first.reworded(reason)
