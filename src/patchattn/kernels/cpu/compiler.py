"""How the kernels of this folder are compiled: once for each set of argument types, and cached on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numba
from numba import types
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

__all__ = ["inlined", "instruction", "kernel"]

logger = logging.getLogger("patchattn")

# Sums may be reordered and fused, but NaN and infinity keep their meaning: a NaN similarity must lose every comparison.
# No reference counts (`_nrt`): kernels allocate nothing, and counting the arrays they are given, at every use in the
# inner loops, took two thirds of the time.
SETTINGS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
    "nogil": True,
    "_nrt": False,
}


@cache
def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into the kernels that call it; one copy of it, since each copy compiles its kernels anew."""
    return numba.njit(forceinline=True, **SETTINGS)(function)


def instruction(function: Callable[..., Any]) -> Any:
    """Numba's `intrinsic`: a function that writes LLVM's code itself. (Type checkers think that one never returns.)"""
    return intrinsic(function)


def kernel(*, vectorize: bool = False, around: Callable[..., Any] | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with Numba, without the interpreter lock.

    Args:
        around: the function that this one is made for, by whose name the disk cache knows it.
        vectorize: let LLVM vectorise the loops by itself. Off by default: the heavy loops here are written as vectors
            already (`vectors.py`), and the many short ones (over k matches) get slower by a third when vectorised.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(**SETTINGS)(function)
        dispatcher._cache = _KernelCache(around or function)
        compile_now = dispatcher.compile

        def compile_with_settings(signature: Any) -> Any:
            with global_compiler_lock:
                before = getattr(config, "LOOP_VECTORIZE")  # noqa: B009 - set at run time, unknown to type checkers
                setattr(config, "LOOP_VECTORIZE", int(vectorize))  # noqa: B010
                try:
                    return compile_now(signature)
                finally:
                    setattr(config, "LOOP_VECTORIZE", before)  # noqa: B010

        dispatcher.compile = compile_with_settings
        return dispatcher

    return decorate


class _KernelCache(FunctionCache):
    """A disk cache that forgets a kernel when any file of this folder has changed, not its own file alone."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self._cache_path, filename_base=self._impl.filename_base, source_stamp=_fingerprint()
        )

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        compiled = None
        if not _holds_function(signature):
            try:
                compiled = super().load_overload(signature, target_context)
            except (AttributeError, ImportError, EOFError, UnpicklingError):
                # The index names classes that are no more: another version of this package wrote it.
                self._cache_file.flush()
        if compiled is None:
            _announce()
        return compiled

    def save_overload(self, signature: Any, data: Any) -> None:
        if not _holds_function(signature):
            super().save_overload(signature, data)


def _holds_function(signature: Any) -> bool:
    """Whether a kernel is compiled around a function of the user's, which another process could not read back."""
    arguments = getattr(signature, "args", signature)
    return any(
        _holds_function(argument.types)
        if isinstance(argument, types.BaseTuple)
        else isinstance(argument, types.Dispatcher)
        for argument in arguments
    )


@cache
def _announce() -> None:
    logger.warning("compiling the CPU kernels for this processor (first use only; about twenty seconds)")


@cache
def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
