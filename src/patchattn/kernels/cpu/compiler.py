"""Compilation of the kernels of this folder: once for each set of argument types, and cached on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import llvmlite.binding
import numba
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from patchattn.kernels.cpu.cache import cache_for

__all__ = ["configured", "inlined", "instruction", "kernel"]

# Older ones end the process where kernels keep the entries of a vector that a condition holds for.
if llvmlite.binding.llvm_version_info[0] < 20:
    raise ImportError(f"Numba {numba.__version__} is too old; 0.62 or newer is needed")

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
    with configured():
        return numba.njit(forceinline=True, **SETTINGS)(function)


def instruction(function: Callable[..., Any]) -> Any:
    """Numba's `intrinsic`: a function that writes LLVM's code itself. (Type checkers think that one never returns.)"""
    return intrinsic(function)


def kernel(*, vectorize: bool = False, around: Callable[..., Any] | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function with Numba, without the interpreter lock.

    Args:
        around: the function that this one is made for, by whose name the disk cache knows it.
        vectorize: let LLVM vectorize the loops by itself. Off by default: the heavy loops here are written as vectors
            already (`vectors.py`), and the many short ones (over k matches) get slower by a third when vectorized.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        with configured():
            dispatcher = numba.njit(**SETTINGS)(function)
        dispatcher._cache = cache_for(around or function)
        compile_now = dispatcher.compile

        def compile_with_settings(signature: Any) -> Any:
            with configured(vectorize=vectorize):
                return compile_now(signature)

        dispatcher.compile = compile_with_settings
        return dispatcher

    return decorate


@contextmanager
def configured(*, vectorize: bool = False) -> Iterator[None]:
    """Numba's settings for a kernel, which are settings of the process.

    NUMBA_DISABLE_JIT is for debugging one's own functions: kernels hold instructions that Python cannot run, so they
    are compiled all the same.
    """
    settings = {"LOOP_VECTORIZE": int(vectorize), "DISABLE_JIT": 0}
    with global_compiler_lock:
        before = {name: getattr(config, name) for name in settings}
        try:
            for name, value in settings.items():
                setattr(config, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(config, name, value)
