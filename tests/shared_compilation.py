"""Processes that test side by side compile each CPU kernel once: who comes second waits, and reads it from the disk."""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["share_compilation"]


def share_compilation() -> None:
    """Do nothing where Numba or POSIX's locks are absent, or where the tests run in one process: all then compile."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    try:
        import fcntl

        from numba.core.caching import NullCache
        from numba.core.dispatcher import Dispatcher
    except ImportError:
        return
    if run is None:
        return
    # One byte for each kernel and signature. Closing the file would end all locks of this process.
    path = Path(tempfile.gettempdir()) / f"patchattn-{run}.lock"
    file = path.open("ab", buffering=0)
    atexit.register(path.unlink, missing_ok=True)
    atexit.register(file.close)
    compile_now = Dispatcher.compile

    def compile_once(self: Any, signature: Any) -> Any:
        if isinstance(self._cache, NullCache):  # nothing is written that another process could read
            return compile_now(self, signature)
        name = f"{self.py_func.__module__}.{self.py_func.__qualname__}{getattr(signature, 'args', signature)}"
        byte = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        fcntl.lockf(file, fcntl.LOCK_EX, 1, byte)
        try:
            return compile_now(self, signature)
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, byte)

    Dispatcher.compile = compile_once
