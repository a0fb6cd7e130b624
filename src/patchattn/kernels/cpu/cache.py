"""Machine code on disk: what comes with the package first, then what an earlier process has compiled.

Where no folder can be written for the second, it is done without.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import types
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, NullCache

from patchattn.kernels.cpu.shipped import fingerprint, load_shipped

__all__ = ["cache_for", "cache_state"]

logger = logging.getLogger("patchattn")

DIGEST_BYTES = 32
NO_PLACE = "neither the package's folder nor the home folder can be written"


def cache_for(function: Callable[..., Any]) -> Any:
    """The cache of one kernel."""
    try:
        return _KernelCache(function)
    except (RuntimeError, OSError):  # no place that can be written, which is said when something is compiled
        return _NoCache(function)


def cache_state() -> dict[str, str | None]:
    """The folder with the machine code, and why it is not kept there; one of both is None."""
    try:
        return {"folder": str(CompileResultCacheImpl(cache_state).locator.get_cache_path()), "problem": None}
    except (RuntimeError, OSError):
        return {"folder": None, "problem": _without_cache(NO_PLACE)}


class _NoCache(NullCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        compiled = None if _holds_function(signature) else load_shipped(self.function, signature, target_context)
        if compiled is None:
            _warn(NO_PLACE)
            _announce()
        return compiled


class _KernelCache(FunctionCache):
    """A disk cache that forgets a kernel when `parameters.py` or any file of this folder has changed.

    (Numba looks at the kernel's own file alone.) Whatever is wrong with the files, the kernel is compiled anew.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self.function = function
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, fingerprint())

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        compiled = None
        if not _holds_function(signature):
            # What is shipped comes first: results do not change when a cache fills, and it is read faster.
            compiled = load_shipped(self.function, signature, target_context)
            if compiled is None:
                compiled = self._load_compiled_here(signature, target_context)
        if compiled is None:
            _announce()
        return compiled

    def _load_compiled_here(self, signature: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(signature, target_context)
        except Exception:
            # Damaged, or of another version of this package: unpickling may raise anything.
            self._forget()
            return None

    def save_overload(self, signature: Any, data: Any) -> None:
        if not _holds_function(signature):
            try:
                super().save_overload(signature, data)
            except OSError as error:
                _warn(str(error))

    def _forget(self) -> None:
        try:
            self._cache_file.flush()
        except OSError as error:
            _warn(str(error))


class _CacheFile(IndexDataCacheFile):
    """Numba's files, but safe against damage and against other processes.

    A file of machine code begins with a digest, for code that is damaged would be run. And it is named by what it is
    for: Numba counts, so that two processes can give two kernels one name, and one reads the other's.
    """

    def save(self, key: Any, data: Any) -> None:
        name = f"{self._index_name.removesuffix('.nbi')}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"
        self._save_data(name, data)
        try:
            overloads = self._load_index()
        except Exception:
            overloads = {}  # damaged since it was read
        self._save_index({**overloads, key: name})

    def _save_data(self, name: str, data: Any) -> None:
        content = self._dump(data)
        with self._open_for_write(self._data_path(name)) as file:
            file.write(self._digest(content) + content)

    def _load_data(self, name: str) -> Any:
        content = Path(self._data_path(name)).read_bytes()
        digest, content = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if digest != self._digest(content):
            raise ValueError(f"{name} is damaged")
        return pickle.loads(content)

    def _digest(self, content: bytes) -> bytes:
        return hashlib.sha256(self._source_stamp.encode() + content).digest()


def _holds_function(signature: Any) -> bool:
    """Whether a kernel is compiled around a function of the user's, which another process could not read back."""
    return any(map(_is_function, getattr(signature, "args", signature)))


def _is_function(kind: Any) -> bool:
    """Whether a type of Numba's is that of a function, or of a tuple with one."""
    if isinstance(kind, types.BaseTuple):
        return any(map(_is_function, getattr(kind, "types", ())))
    return isinstance(kind, types.Dispatcher)


@cache
def _announce() -> None:
    logger.warning("compiling the CPU kernels for this processor (first use only; about twenty seconds)")


_warned = False


def _warn(reason: str) -> None:
    """Say once that machine code is not kept."""
    global _warned
    if not _warned:
        _warned = True
        logger.warning(_without_cache(reason))


def _without_cache(reason: str) -> str:
    return (
        f"the compiled CPU kernels cannot be kept on disk ({reason}), so that every process compiles them anew; set "
        "the environment variable NUMBA_CACHE_DIR to a folder that can be written"
    )
