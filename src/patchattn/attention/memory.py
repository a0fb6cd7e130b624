"""Free memory of a device."""

from __future__ import annotations

import os
from pathlib import Path

import torch

__all__ = ["free_memory"]


def free_memory(device: torch.device) -> int | None:
    """Return the free memory of a device in bytes; None where the system does not report it.

    Linux tells of the processor's memory what is free or can be freed; macOS what is built in.

    Example:
        >>> free = free_memory(torch.device("cpu"))
        >>> free is None or free > 2**20
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    try:
        report = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        report = ""
    for line in report.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
