"""The worker process: reads one job a line from stdin, writes reports line by line to stdout."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from typing import Any

__all__ = ["main"]

REPORT_INTERVAL = 0.1
"""Seconds between two reports of a stage's progress."""


class ReportWriter:
    """Writes reports to stdout as lines of JSON."""

    def __init__(self) -> None:
        # Whatever else is printed here must not come between the lines.
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last = 0.0

    def write(self, **report: Any) -> None:
        print(json.dumps(report), file=self._file, flush=True)

    def write_stage(self, name: str) -> None:
        self._last = 0.0
        self.write(stage=name)

    def write_progress(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= REPORT_INTERVAL:
            self._last = time.monotonic()
            self.write(done=done, total=total)


def main() -> None:
    """Run jobs until stdin ends."""
    # Ctrl-C reaches this process too; the server ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    writer = ReportWriter()
    # The heavy packages are imported before the first job comes.
    from patchattn.demo import jobs  # noqa: F401

    for job in iter(_read_jobs().get, None):
        _run(job, writer)


def _run(job: dict[str, Any], writer: ReportWriter) -> None:
    """Run a job, and report its result or its error."""
    from patchattn.demo.jobs import JOBS
    from patchattn.progress import watch_progress
    from patchattn.tasks.warnings import FileWarning

    try:
        with watch_progress(writer.write_progress), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FileWarning)
            result = JOBS[job["job"]](job, writer.write_stage)
    except MemoryError:
        writer.write(error="There is not enough memory for this; try a smaller picture.")
    except (ValueError, RuntimeError, OSError) as error:
        writer.write(error=_message(error, job))
    except Exception as error:
        traceback.print_exc()
        writer.write(error=f"This should not have happened ({type(error).__name__}); see the terminal for details.")
    else:
        notes = [_message(note.message, job) for note in caught if issubclass(note.category, FileWarning)]
        writer.write(result=result, notes=notes)


def _read_jobs() -> queue.SimpleQueue[dict[str, Any]]:
    """Queue the jobs in the order of the lines; the process ends with stdin, also in the middle of a job.

    Stdin ends with the server, however that ends: nobody waits for the result then.
    """
    jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            jobs.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return jobs


def _message(error: Exception | Warning | str, job: dict[str, Any]) -> str:
    """The message of an error, without the folders of this machine."""
    message = str(error) or type(error).__name__
    paths = [value for value in job.values() if isinstance(value, str) and os.path.isabs(value)]
    for path in sorted(paths, key=len, reverse=True):  # a file in a folder before the folder
        message = message.replace(path, Path(path).name)
    return message[0].upper() + message[1:]


if __name__ == "__main__":
    main()
