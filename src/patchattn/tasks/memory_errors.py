"""Messages for out-of-memory errors."""

from __future__ import annotations

import re

from patchattn.tasks.peak_memory import current_memory

__all__ = ["out_of_memory"]

UNITS = {"bytes": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60}
SIZE = re.compile(r"(?:allocate|requested) ([\d.]+) (bytes|[KMGTPE]iB|B)\b")
ALLOCATORS = ("can't allocate memory", "out of memory", "not enough memory")
"""Prefixes of the RuntimeErrors of PyTorch's allocators."""


def out_of_memory(error: BaseException) -> str | None:
    """Return a message (without full stop) for an out-of-memory error; None for other errors.

    Example:
        >>> out_of_memory(MemoryError("Unable to allocate 7.45 GiB for an array with shape (1, 2)"))
        'not enough memory: another 7.5 GiB were needed beside the ... in use'
        >>> out_of_memory(ValueError("k: expected a whole number")) is None
        True
    """
    words = str(error)
    if not isinstance(error, MemoryError) and not any(beginning in words for beginning in ALLOCATORS):
        return None
    found = SIZE.search(words)
    in_use = current_memory()
    beside = "" if in_use is None else f" beside the {_shown(in_use)} in use"
    if found is None:
        return f"not enough memory: more was needed{beside}"
    return f"not enough memory: another {_shown(float(found[1]) * UNITS[found[2]])} were needed{beside}"


def _shown(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"
