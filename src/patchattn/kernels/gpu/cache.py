"""Triton's compiled kernels on disk: done without, in a process, where there is no place for them."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from functools import cache
from pathlib import Path

import triton

__all__ = ["cache_state", "ensure_cache"]

logger = logging.getLogger("patchattn")


def cache_state() -> dict[str, str | None]:
    """The folder with the compiled kernels, and why they are not kept there; one of both is None."""
    folder = Path(triton.knobs.cache.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        problem = (
            f"the compiled GPU kernels cannot be kept on disk ({error}), so that every process compiles them anew; set "
            "the environment variable TRITON_CACHE_DIR to a folder that can be written"
        )
        return {"folder": None, "problem": problem}
    return {"folder": str(folder), "problem": None}


@cache
def ensure_cache() -> None:
    """Give Triton a folder for this process alone if its own cannot be written: it compiles nothing without one."""
    problem = cache_state()["problem"]
    if problem is not None:
        logger.warning(problem)
        folder = tempfile.mkdtemp(prefix="patchattn-triton-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        triton.knobs.cache.dir = folder
