"""What a call takes of memory, and measurements in processes of their own; shared by all benchmarks.

Linux only: the peak is read from /proc/self/status and reset through /proc/self/clear_refs.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

MIB = 2**20
T = TypeVar("T")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def peak_beyond(function: Callable[[], T]) -> tuple[int, T]:
    """Bytes by which the peak during a call lies above what was resident before it, and what it returned."""
    # What was freed before stays resident, and a call that used it again would seem to take nothing.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    answer = function()
    return _status("VmHWM") - before, answer


def in_fresh_process(
    command: Sequence[str], environment: Mapping[str, str] | None = None, timeout: float | None = None
) -> dict[str, Any]:
    """Run a command that prints JSON as its last line; what it says on stderr is shown.

    Args:
        command: what to run.
        environment: variables that it has beside this process's.
        timeout: seconds after which it is ended, and `subprocess.TimeoutExpired` raised.
    """
    variables = {**os.environ, **(environment or {})}
    output = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=variables, timeout=timeout
    ).stdout
    answer: dict[str, Any] = json.loads(output.splitlines()[-1])
    return answer
