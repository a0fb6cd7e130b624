"""Current and peak memory of the process."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["current_memory", "peak_memory"]


def peak_memory() -> int | None:
    """Return the peak resident memory of this process since its start, in bytes; None where the system does not report
    it.

    Example:
        >>> peak_memory() is None or peak_memory() > 2**20
        True
    """
    # Linux: getrusage() also counts what the parent process held before it started this one; VmHWM does not.
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def current_memory() -> int | None:
    """Return the resident memory of this process in bytes; None except on Linux."""
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """Read a size from /proc/self/status; None except on Linux."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None
