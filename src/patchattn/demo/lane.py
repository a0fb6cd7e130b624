"""Work that waits for its turn, runs in a process of its own, and can be stopped at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

__all__ = ["Failed", "Lane", "Stopped"]

Told = dict[str, Any]

LONGEST_LINE = 2**26
"""Bytes of what a worker tells at once."""


class Failed(Exception):  # noqa: N818  it is an answer, in a sentence for the visitor
    """The work came to nothing; why, in a sentence."""


class Stopped(Exception):  # noqa: N818  likewise
    """Somebody stopped the work."""


@dataclass(eq=False)
class _Ticket:
    """A place in the queue."""

    owner: str
    stopped: bool = False


class Lane:
    """One worker process, and the queue before it.

    The process is kept from one piece of work to the next, for it has PyTorch loaded. To stop the work is to kill the
    process, which frees its cores and its memory at once, whatever it computes; the next work starts another.
    """

    def __init__(self, waiting: int) -> None:
        self._limit = waiting
        self._tickets: list[_Ticket] = []
        self._process: Process | None = None

    async def run(self, owner: str, job: Told) -> AsyncGenerator[Told]:
        """Do a job (see `jobs`) when its turn has come; yield what is told of it, `{"result": ...}` last.

        Raises:
            Failed: the queue is full, the job failed, or its process died.
            Stopped: `stop(owner)` was called.
        """
        if len(self._tickets) > self._limit:
            raise Failed(f"{self._limit} pieces of work are waiting already; please try again in a few minutes.")
        ticket = _Ticket(owner)
        self._tickets.append(ticket)
        try:
            while (before := self._tickets.index(ticket)) > 0:
                yield {"waiting": before}
                await asyncio.sleep(0.2)
                if ticket.stopped:
                    raise Stopped
            async with contextlib.aclosing(self._work(ticket, job)) as work:
                async for told in work:
                    yield told
        finally:
            self._tickets.remove(ticket)

    def stop(self, owner: str) -> None:
        """Stop the work of this owner, running or waiting."""
        for ticket in self._tickets:
            if ticket.owner == owner:
                ticket.stopped = True
                if ticket is self._tickets[0]:
                    self.close()

    def close(self) -> None:
        """Kill the process, if there is one."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def end(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        process = self._process
        self.close()
        if process is not None:
            await process.wait()

    async def _work(self, ticket: _Ticket, job: Told) -> AsyncGenerator[Told]:
        process = self._process = await self._started()
        if ticket.stopped:  # while it started
            self.close()
            raise Stopped
        assert process.stdin is not None
        assert process.stdout is not None
        finished = False
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            while not finished:
                line = await process.stdout.readline()
                if ticket.stopped:
                    raise Stopped
                if not line:
                    raise Failed("The system ended the work, most likely for lack of memory; try a smaller picture.")
                told = json.loads(line)
                finished = "result" in told or "error" in told
                if "error" in told:
                    raise Failed(told["error"])
                yield told
        finally:
            # Also where the visitor has left: nobody waits for the rest.
            if not finished:
                self.close()
                await process.wait()

    async def _started(self) -> Process:
        if self._process is not None and self._process.returncode is None:
            return self._process
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "patchattn.demo.worker", stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE
        )
