"""The process in which pictures are worked on: one job a line from stdin, what is told of it line by line to stdout."""

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

PAUSE = 0.1
"""Seconds between two reports of how far a stage has come."""


class Telling:
    """What the work tells, as lines of JSON."""

    def __init__(self) -> None:
        # Whatever else is printed here must not come between the lines.
        self._file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._last = 0.0

    def line(self, **told: Any) -> None:
        print(json.dumps(told), file=self._file, flush=True)

    def stage(self, name: str) -> None:
        self._last = 0.0
        self.line(stage=name)

    def steps(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= PAUSE:
            self._last = time.monotonic()
            self.line(done=done, total=total)


def main() -> None:
    """Work until stdin ends."""
    # Ctrl-C reaches this process too; the page ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    telling = Telling()
    # The heavy packages, while nobody has asked for anything yet.
    from patchattn.demo import jobs  # noqa: F401

    for job in iter(_asked().get, None):
        _do(job, telling)


def _do(job: dict[str, Any], telling: Telling) -> None:
    """Do a job, and tell what came of it, whatever that is."""
    from patchattn.demo.jobs import JOBS
    from patchattn.progress import watch_progress
    from patchattn.tasks.warnings import FileWarning

    try:
        with watch_progress(telling.steps), warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", FileWarning)
            result = JOBS[job["job"]](job, telling.stage)
    except MemoryError:
        telling.line(error="There is not enough memory for this; try a smaller picture.")
    except (ValueError, RuntimeError, OSError) as error:
        telling.line(error=_sentence(error, job))
    except Exception as error:
        traceback.print_exc()
        telling.line(error=f"This should not have happened ({type(error).__name__}); the terminal tells more.")
    else:
        notes = [_sentence(note.message, job) for note in heard if issubclass(note.category, FileWarning)]
        telling.line(result=result, notes=notes)


def _asked() -> queue.SimpleQueue[dict[str, Any]]:
    """What is asked for, in the order of the lines; the process ends with stdin, also in the middle of its work.

    Stdin ends with the server, however that ends: nobody waits for the work then.
    """
    asked: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            asked.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return asked


def _sentence(error: Exception | Warning | str, job: dict[str, Any]) -> str:
    """Its own words, without the folders of this machine."""
    words = str(error) or type(error).__name__
    paths = [given for given in job.values() if isinstance(given, str) and os.path.isabs(given)]
    for path in sorted(paths, key=len, reverse=True):  # what lies in a folder before the folder
        words = words.replace(path, Path(path).name)
    return words[0].upper() + words[1:]


if __name__ == "__main__":
    main()
