"""Queue of jobs before worker processes. Visitors take turns, so that many jobs of one do not delay the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from patchattn.demo.process import JobError, JobReport, JobRequest, WorkerProcess

__all__ = ["JobError", "JobQueue", "JobStoppedError"]

REPORT_INTERVAL = 0.5
"""Seconds between two reports of a waiting job's place in the queue."""


class JobStoppedError(Exception):
    """The job was stopped by its visitor."""


@dataclass(eq=False)
class _Ticket:
    """A job that waits or runs."""

    visitor: str
    key: str
    worker: WorkerProcess | None = None
    """The worker that runs it; None while it waits."""
    stopped: bool = False
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its turn has come, or when it was stopped."""


class JobQueue:
    """Worker processes, and the queue before them.

    The next turn has the visitor whose last one is the longest ago, and of this visitor's jobs the oldest. No visitor
    has more than one worker at a time, so that with two of them the second is there for others whatever one does.

    Args:
        max_waiting: jobs that may wait.
        max_visitor_waiting: jobs of one visitor that may wait.
        workers: jobs that run at a time.
        start: makes a worker.
        keep_running: keep processes running, also in place of one that was killed, so that no job waits for a start.
    """

    def __init__(
        self,
        max_waiting: int,
        max_visitor_waiting: int,
        workers: int = 1,
        start: Callable[[], WorkerProcess] = WorkerProcess,
        *,
        keep_running: bool = False,
    ) -> None:
        self._max_waiting, self._max_visitor_waiting = max_waiting, max_visitor_waiting
        self._keep_running = keep_running
        self._workers = [start() for _ in range(workers)]
        self._idle = list(self._workers)
        self._tickets: list[_Ticket] = []
        self._turns: dict[str, int] = {}
        """Number of each visitor's last turn, counted since the queue was last empty."""

    async def run(self, visitor: str, key: str, job: JobRequest) -> AsyncGenerator[JobReport]:
        """Run a job (see `jobs`) when its turn has come; yield its reports, `{"result": ...}` last.

        Args:
            visitor: whose turn it takes.
            key: name for `stop`.
            job: as the worker takes it.

        Raises:
            JobError: the queue is full, the job failed, or its process died.
            JobStoppedError: `stop(key)` was called.
        """
        self.check_length(visitor)
        ticket = _Ticket(visitor, key)
        self._tickets.append(ticket)
        try:
            self._give_turns()
            while not ticket.turn.is_set():
                yield {"waiting": self._count_before(ticket)}
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(ticket.turn.wait(), REPORT_INTERVAL)
            if ticket.worker is None:
                raise JobStoppedError
            async with contextlib.aclosing(ticket.worker.run(job)) as reports:
                async for report in reports:
                    if ticket.stopped:
                        raise JobStoppedError
                    yield report
        except JobError:
            if ticket.stopped:
                raise JobStoppedError from None
            raise
        finally:
            self._tickets.remove(ticket)
            if ticket.worker is not None:
                self._idle.append(ticket.worker)
            self._give_turns()
            await self.start_workers()

    async def start_workers(self) -> None:
        """Start the processes that are to be kept running."""
        if self._keep_running:
            for worker in self._workers:
                with contextlib.suppress(JobError):  # the server is shutting down
                    await worker.start()

    def check_length(self, visitor: str) -> None:
        """Raise `JobError` if no more jobs can wait, of this visitor or of all."""
        waiting = [ticket for ticket in self._tickets if ticket.worker is None]
        own = sum(ticket.visitor == visitor for ticket in waiting)
        if own >= self._max_visitor_waiting:
            raise JobError(f"{own} of your jobs are waiting already; please let them finish first.")
        if len(waiting) >= self._max_waiting:
            raise JobError(f"{len(waiting)} jobs are waiting already; please try again in a few minutes.")

    def stop(self, key: str) -> None:
        """Stop the jobs of this key, running or waiting."""
        for ticket in self._tickets:
            if ticket.key == key:
                ticket.stopped = True
                ticket.turn.set()
                if ticket.worker is not None:
                    ticket.worker.kill()

    async def close(self) -> None:
        """Kill all processes, and wait until they are gone."""
        for worker in self._workers:
            await worker.close()

    def _give_turns(self) -> None:
        while self._idle and (ticket := self._next(self._turns, self._busy(), self._waiting())) is not None:
            self._turns[ticket.visitor] = max(self._turns.values(), default=0) + 1
            ticket.worker = self._idle.pop()
            ticket.turn.set()
        if not self._tickets:
            self._turns.clear()

    def _waiting(self) -> list[_Ticket]:
        return [ticket for ticket in self._tickets if ticket.worker is None and not ticket.stopped]

    def _busy(self) -> set[str]:
        return {ticket.visitor for ticket in self._tickets if ticket.worker is not None}

    @staticmethod
    def _next(turns: dict[str, int], busy: set[str], waiting: list[_Ticket]) -> _Ticket | None:
        """The ticket whose turn is next. `min` takes the first of equals: the oldest."""
        ready = [ticket for ticket in waiting if ticket.visitor not in busy]
        return min(ready, key=lambda ticket: turns.get(ticket.visitor, 0), default=None)

    def _count_before(self, ticket: _Ticket) -> int:
        """Count the jobs that run, or have their turns before this one if no other comes."""
        turns, waiting = dict(self._turns), self._waiting()
        before = len(self._workers) - len(self._idle)
        while waiting and (following := self._next(turns, set(), waiting)) is not ticket and following is not None:
            turns[following.visitor] = max(turns.values(), default=0) + 1
            waiting.remove(following)
            before += 1
        return before
