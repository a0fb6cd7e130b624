"""Work that waits for its turn. Visitors take turns, so that whoever asks for much does not make others wait for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from patchattn.demo.process import Failed, WorkerProcess

__all__ = ["Failed", "Lane", "Stopped"]

Job = dict[str, Any]

REPORTED = 0.5
"""Seconds between two reports of how many are before a piece of work."""


class Stopped(Exception):  # noqa: N818  it is an answer, as `Failed` is
    """Somebody stopped the work."""


@dataclass(eq=False)
class _Ticket:
    """A piece of work that waits or runs."""

    visitor: str
    key: str
    worker: WorkerProcess | None = None
    """Which does it; None while it waits."""
    stopped: bool = False
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its turn has come, or when it was stopped."""


class Lane:
    """Worker processes, and the queue before them.

    The next turn has the visitor whose last one is the longest ago, and of this visitor's work the oldest. No visitor
    has more than one worker at a time, so that with two of them the second is there for others whatever one does.

    Args:
        waiting: how many pieces of work may wait.
        visitor_waiting: how many of them may be of one visitor.
        workers: how many pieces are done at a time.
        start: makes a worker.
        ready: keep processes running, also in place of one that was killed, so that nobody waits until one has started.
    """

    def __init__(
        self,
        waiting: int,
        visitor_waiting: int,
        workers: int = 1,
        start: Callable[[], WorkerProcess] = WorkerProcess,
        *,
        ready: bool = False,
    ) -> None:
        self._limit, self._visitor_limit, self._ready = waiting, visitor_waiting, ready
        self._workers = [start() for _ in range(workers)]
        self._idle = list(self._workers)
        self._tickets: list[_Ticket] = []
        self._turns: dict[str, int] = {}
        """When each visitor had a turn last, counted in turns, since the queue was last empty."""

    async def run(self, visitor: str, key: str, job: Job) -> AsyncGenerator[Job]:
        """Do a job (see `jobs`) when its turn has come; yield what is reported of it, `{"result": ...}` last.

        Args:
            visitor: whose turn it takes.
            key: what `stop` calls it.
            job: as the worker takes it.

        Raises:
            Failed: the queue is full, the job failed, or its process died.
            Stopped: `stop(key)` was called.
        """
        self.check_queue(visitor)
        ticket = _Ticket(visitor, key)
        self._tickets.append(ticket)
        try:
            self._give_turns()
            while not ticket.turn.is_set():
                yield {"waiting": self._before(ticket)}
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(ticket.turn.wait(), REPORTED)
            if ticket.worker is None:
                raise Stopped
            async with contextlib.aclosing(ticket.worker.run(job)) as work:
                async for report in work:
                    if ticket.stopped:
                        raise Stopped
                    yield report
        except Failed:
            if ticket.stopped:
                raise Stopped from None
            raise
        finally:
            self._tickets.remove(ticket)
            if ticket.worker is not None:
                self._idle.append(ticket.worker)
            self._give_turns()
            await self.prepare()

    async def prepare(self) -> None:
        """Start the processes that are to be ready."""
        if self._ready:
            for worker in self._workers:
                with contextlib.suppress(Failed):  # the page is ending
                    await worker.start()

    def check_queue(self, visitor: str) -> None:
        """Raise `Failed` if no more work can wait, of this visitor or of all."""
        waiting = [ticket for ticket in self._tickets if ticket.worker is None]
        own = sum(ticket.visitor == visitor for ticket in waiting)
        if own >= self._visitor_limit:
            raise Failed(f"{own} pieces of your work are waiting already; please let them finish first.")
        if len(waiting) >= self._limit:
            raise Failed(f"{len(waiting)} pieces of work are waiting already; please try again in a few minutes.")

    def stop(self, key: str) -> None:
        """Stop the work of this key, running or waiting."""
        for ticket in self._tickets:
            if ticket.key == key:
                ticket.stopped = True
                ticket.turn.set()
                if ticket.worker is not None:
                    ticket.worker.close()

    async def end(self) -> None:
        """Kill all processes, and wait until they are gone."""
        for worker in self._workers:
            await worker.end()

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
        """Whose turn is next. `min` takes the first of equals: the oldest."""
        ready = [ticket for ticket in waiting if ticket.visitor not in busy]
        return min(ready, key=lambda ticket: turns.get(ticket.visitor, 0), default=None)

    def _before(self, ticket: _Ticket) -> int:
        """How many pieces of work run, or have their turns before this one if no other comes."""
        turns, waiting = dict(self._turns), self._waiting()
        before = len(self._workers) - len(self._idle)
        while waiting and (following := self._next(turns, set(), waiting)) is not ticket and following is not None:
            turns[following.visitor] = max(turns.values(), default=0) + 1
            waiting.remove(following)
            before += 1
        return before
