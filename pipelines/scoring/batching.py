"""Many small requests become few large calls of a reward.

OpenRLHF asks for one completion at a time, from many coroutines at once. What waits is merged into calls of up to
`batch_size` completions, the oldest one and those nearest to it in length, all of them in one thread: the event loop
stays free, and a reward is never called twice at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from trimtab.rewards import Outcome, Reward, RewardFailure, failure_of, outcomes, score


@dataclass(eq=False, kw_only=True)
class Row:
    """One completion of a request; the worker fills in `outcome` and `logs`."""

    index: int  # in its request
    query: str
    prompt: str
    completion: str
    label: Any = None
    outcome: Outcome = None
    logs: dict[str, float | None] = field(default_factory=dict)


@dataclass(eq=False)
class Ticket:
    """One request's place in the queue: `done` is settled by its last score or its first failure."""

    done: asyncio.Future
    left: int
    arrived: float  # by the clock of the event loop
    alone: bool = False  # not to be merged with other requests (again)


@dataclass(eq=False)
class Waiting:
    """A row in the queue, and the request that it belongs to."""

    row: Row
    ticket: Ticket


class Batcher:
    """Merges the rows of concurrent requests into calls of the reward.

    When everything in a merged call fails, one row may have brought down the others: its requests are then called
    again, each by itself. Rows whose request has failed, or was cancelled because its client is gone, are dropped.
    """

    def __init__(self, reward: Reward, name: str = "", *, batch_size: int = 64, max_wait: float = 0.01):
        self.reward, self.name, self.batch_size, self.max_wait = reward, name, batch_size, max_wait
        self.is_scoring = False
        self._queue: list[Waiting] = []
        self._arrived = asyncio.Condition()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reward")

    async def submit(self, rows: Sequence[Row]) -> asyncio.Future:
        """Queues the rows of a request. The future is done when all are scored, and holds the first RewardFailure."""
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), len(rows), loop.time())
        async with self._arrived:
            self._queue += [Waiting(row, ticket) for row in rows]
            self._arrived.notify()
        return ticket.done

    async def run(self) -> None:
        """Serves the queue until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._arrived:
                await self._arrived.wait_for(lambda: self._queue)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._queue[0].ticket.arrived + self.max_wait):
                        await self._arrived.wait_for(lambda: len(self._queue) >= self.batch_size)
            if batch := self._take():
                await loop.run_in_executor(self._thread, self.call, [waiting.row for waiting in batch])
                self._settle(batch)

    def call(self, rows: Sequence[Row]) -> None:
        """Scores the rows in one call of the reward, in this thread."""
        self.is_scoring = True
        logs: dict[str, list[float | None]] = {}

        def log_extra(column: str, values: Sequence[Any]) -> None:
            if len(values) == len(rows):  # or it could not be said whose they are
                logs[column] = [number if isinstance(number := score(value), float) else None for value in values]

        try:
            answers = outcomes(
                self.reward,
                [row.prompt for row in rows],
                [row.completion for row in rows],
                name=self.name,
                indices=[row.index for row in rows],
                queries=[row.query for row in rows],
                labels=[row.label for row in rows],
                log_extra=log_extra,
                log_metric=lambda name, value: None,  # a number of the whole call, which is no request's
            )
        except Exception as error:  # nobody would answer the requests if this thread's work ended here
            answers = [failure_of(error)] * len(rows)
        for place, row in enumerate(rows):
            row.outcome = answers[place]
            row.logs = {column: values[place] for column, values in logs.items()}
        self.is_scoring = False

    def _take(self) -> list[Waiting]:
        """The next call: the oldest row and those nearest to it in length, of requests that are still wanted."""
        self._queue = [waiting for waiting in self._queue if not waiting.ticket.done.done()]
        if not self._queue:
            return []
        oldest = self._queue[0]
        if oldest.ticket.alone:
            mates = [waiting for waiting in self._queue if waiting.ticket is oldest.ticket]
        else:
            mates = [waiting for waiting in self._queue if not waiting.ticket.alone]
        length = len(oldest.row.query)
        batch = heapq.nsmallest(self.batch_size, mates, key=lambda waiting: abs(len(waiting.row.query) - length))
        taken = set(batch)
        self._queue = [waiting for waiting in self._queue if waiting not in taken]
        return batch

    def _settle(self, batch: list[Waiting]) -> None:
        failed = [waiting for waiting in batch if isinstance(waiting.row.outcome, RewardFailure)]
        if len(failed) == len(batch) and len({waiting.ticket for waiting in batch}) > 1:
            for waiting in batch:
                waiting.ticket.alone = True
            self._queue[:0] = batch
            return
        for waiting in batch:
            ticket, outcome = waiting.ticket, waiting.row.outcome
            ticket.left -= 1
            if ticket.done.done():
                continue
            if isinstance(outcome, RewardFailure):
                ticket.done.set_exception(outcome)
            elif ticket.left == 0:
                ticket.done.set_result(None)
