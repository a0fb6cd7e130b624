"""A process that does one piece of work after another, and is killed to stop it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from typing import Any

__all__ = ["Failed", "WorkerProcess"]

MAX_LINE = 2**26
"""Bytes of what a worker reports at once."""


class Failed(Exception):  # noqa: N818  it is an answer, in a sentence for the visitor
    """The work came to nothing; why, in a sentence."""


class WorkerProcess:
    """Runs `worker` in a process, which is kept from one piece of work to the next, for it has PyTorch loaded.

    To stop the work is to kill the process, which frees its cores and its memory at once, whatever it computes; the
    next work starts another.

    Args:
        seconds: the longest that a piece of work may take; None: as long as it needs.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self.process: Process | None = None
        self._starting = asyncio.Lock()
        self._ended = False

    async def run(self, job: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
        """Do a job (see `jobs`); yield what is reported of it, `{"result": ...}` last.

        Raises:
            Failed: the job failed, took too long, or the process died or was killed by `close`.
        """
        process = await self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        finished = False
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            while not finished:
                try:
                    line = await asyncio.wait_for(process.stdout.readline(), self._seconds)
                except asyncio.TimeoutError:
                    raise Failed(f"This took longer than {self._seconds:g} s; try a smaller picture.") from None
                if not line:
                    raise Failed("The system ended the work, most likely for lack of memory; try a smaller picture.")
                report = json.loads(line)
                finished = "result" in report or "error" in report
                if "error" in report:
                    raise Failed(report["error"])
                yield report
        finally:
            # Also where the visitor has left: nobody waits for the rest.
            if not finished:
                self.close()
                await process.wait()

    def close(self) -> None:
        """Kill the process, if there is one."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def end(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        self._ended = True
        async with self._starting:
            process = self.process
        self.close()
        if process is not None:
            await process.wait()

    async def start(self) -> Process:
        """Start the process, if none runs; it takes some seconds until it has loaded what it needs.

        Raises:
            Failed: `end` was called.
        """
        async with self._starting:
            if self._ended:
                raise Failed("The page is ending.")
            if self.process is None or self.process.returncode is not None:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "patchattn.demo.worker", stdin=PIPE, stdout=PIPE, limit=MAX_LINE
                )
            return self.process
