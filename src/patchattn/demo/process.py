"""A worker process that runs one job after another, and is killed to stop one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from typing import Any

__all__ = ["JobError", "JobReport", "JobRequest", "WorkerProcess"]

JobRequest = dict[str, Any]
"""A job for the worker: its name as `job`, and its arguments; plain values."""
JobReport = dict[str, Any]
"""A report from the worker: `stage`, `done` of `total`, or at the end `result` with `notes`, or `error`."""

MAX_LINE = 2**26
"""Bytes of one report."""
REPEAT_INTERVAL = 1.0
"""Seconds after which the last report is repeated. Gradio ends the job of a visitor who has left at the next report."""


class JobError(Exception):
    """A job that failed; its message is for the visitor."""


class WorkerProcess:
    """A process that runs `worker`, kept from one job to the next, since it has PyTorch loaded.

    To stop a job the process is killed, which frees its cores and its memory at once; the next job starts another.

    Args:
        seconds: time limit of a job; None: no limit.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self.process: Process | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def run(self, job: JobRequest) -> AsyncGenerator[JobReport]:
        """Run a job (see `jobs`); yield its reports (the last again while none comes), `{"result": ...}` last.

        Raises:
            JobError: the job failed, took too long, or the process died or was killed by `kill`.
        """
        process = await self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        report: JobReport | None = None
        finished = False
        try:
            process.stdin.write(json.dumps(job).encode() + b"\n")
            while not finished:
                line = asyncio.ensure_future(process.stdout.readline())
                try:
                    waited = 0.0
                    while not line.done():
                        if self._seconds is not None and waited >= self._seconds:
                            raise JobError(f"This took longer than {self._seconds:g} s; try a smaller picture.")
                        pause = min(REPEAT_INTERVAL, self._seconds or REPEAT_INTERVAL)
                        await asyncio.wait([line], timeout=pause)
                        waited += pause
                        if not line.done() and report is not None:
                            yield report
                finally:
                    line.cancel()
                if not line.result():
                    raise JobError("The system ended the job, most likely for lack of memory; try a smaller picture.")
                report = json.loads(line.result())
                finished = "result" in report or "error" in report
                if "error" in report:
                    raise JobError(report["error"])
                yield report
        finally:
            # Also where the visitor has left: nobody waits for the rest.
            if not finished:
                self.kill()
                await process.wait()

    def kill(self) -> None:
        """Kill the process, if there is one; the next job starts another."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def close(self) -> None:
        """Kill the process, if there is one, wait until it is gone, and start no other."""
        self._closed = True
        async with self._starting:
            process = self.process
        self.kill()
        if process is not None:
            await process.wait()

    async def start(self) -> Process:
        """Start the process, if none runs; it takes some seconds to import what it needs.

        Raises:
            JobError: `close` was called.
        """
        async with self._starting:
            if self._closed:
                raise JobError("The server is shutting down.")
            if self.process is None or self.process.returncode is not None:
                self.process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "patchattn.demo.worker", stdin=PIPE, stdout=PIPE, limit=MAX_LINE
                )
            return self.process
