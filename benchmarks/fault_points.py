"""Faults injected into one command: a failure or a signal at a chosen write, flush, rename, or tenth of its work."""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchattn import progress
from patchattn.cli.stages import Stages
from patchattn.tasks.files import CheckedFile
from patchattn.tasks.journal import Journal

__all__ = ["FAULTS", "POINTS", "Fault", "count_points", "inject"]

POINTS = ("write", "fsync", "rename", "record", "work")
"""Where: bytes that are written to a file; the flush of a file to the disk; its renaming; a line of a folder's journal;
and each report of the work's progress."""

FAULTS = ("disk full", "exception", "SIGTERM", "SIGINT", "SIGKILL")


@dataclass(frozen=True)
class Fault:
    """One fault."""

    point: str
    number: int
    """How many points of the kind are passed before."""
    kind: str


def count_points(run: Callable[[], Any]) -> Counter[str]:
    """Return how many points of each kind a run passes."""
    counts: Counter[str] = Counter()
    _patch(lambda point: counts.update([point]))
    run()
    return counts


def inject(fault: Fault) -> None:
    """Let a fault happen in this process."""
    left = fault.number

    def pass_point(point: str) -> None:
        nonlocal left
        if point != fault.point:
            return
        left -= 1
        if left == -1:
            _fail(fault.kind)

    _patch(pass_point)


def _fail(kind: str) -> None:
    if kind.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, kind))
    elif kind == "disk full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        raise RuntimeError("an injected exception")


def _patch(pass_point: Callable[[str], None]) -> None:
    def before(owner: Any, name: str, point: str) -> None:
        function = getattr(owner, name)

        def instead(*arguments: Any, **settings: Any) -> Any:
            pass_point(point)
            return function(*arguments, **settings)

        setattr(owner, name, instead)

    write = CheckedFile.write

    def half_written(self: CheckedFile, data: Any) -> int:
        # As a disk that fills up: half of it is taken.
        try:
            pass_point("write")
        except OSError as error:
            write(self, memoryview(data).cast("B")[: memoryview(data).nbytes // 2])
            self._error = error
            raise
        return write(self, data)

    CheckedFile.write = half_written  # type: ignore[method-assign]
    before(os, "fsync", "fsync")
    before(os, "replace", "rename")
    before(Path, "rename", "rename")
    before(Journal, "_add", "record")
    before(Stages, "__call__", "work")
    before(progress, "report", "work")
