"""Ranges of work on a pool of threads."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

Scratch = Callable[[], tuple[Any, ...]]

__all__ = ["run_ranges"]

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_here = threading.local()
"""State of a thread: whether it `shares` the work of others."""


def run_ranges(kernel: Callable[..., Any], count: int, chunk: int, *arguments: Any, scratch: Scratch = tuple) -> None:
    """Call `kernel(low, high, *arguments, *scratch())` for consecutive ranges that cover `range(count)`.

    The ranges depend on `chunk` alone, and each is computed by one thread from start to end, so that results do not
    depend on the number of threads (`torch.get_num_threads()`). `scratch` makes arrays that
    a thread has for itself (kernels allocate nothing). Within a kernel that has ranges run itself, they run in its
    thread: the others are busy.
    """
    starts = itertools.count(0, chunk)  # next() on it is atomic

    def work() -> None:
        own = scratch()
        while (low := next(starts)) < count:
            kernel(low, min(low + chunk, count), *arguments, *own)

    def share() -> None:
        _here.shares = True
        try:
            work()
        finally:
            _here.shares = False

    helpers = 0 if getattr(_here, "shares", False) else min(torch.get_num_threads(), -(-count // chunk)) - 1
    if helpers < 1:
        work()
        return
    futures = [_threads(helpers).submit(share) for _ in range(helpers)]
    try:
        share()
    finally:
        # Also after an exception (Ctrl-C): nobody may still write to the arrays when this returns.
        starts = itertools.count(count)
        for future in futures:
            future.result()


def _threads(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size < size:
            _pool = ThreadPoolExecutor(size, thread_name_prefix="patchattn")
            _pool_size = size
        return _pool


def _forget_pool() -> None:
    """In a forked child the threads are gone: start anew."""
    global _pool, _lock
    _pool = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
