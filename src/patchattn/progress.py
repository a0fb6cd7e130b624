"""Progress reports of long searches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["report", "watch_progress"]

_watcher: ContextVar[Callable[[int, int], None] | None] = ContextVar("patchattn_progress", default=None)


@contextmanager
def watch_progress(watcher: Callable[[int, int], None]) -> Iterator[None]:
    """Call `watcher(steps_done, steps_in_all)` from the searches that run in this context.

    Example:
        >>> from patchattn.progress import watch_progress
        >>> with watch_progress(lambda done, total: print(f"{done} of {total}")):
        ...     pass  # call match() or patch_attention() here
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def report(done: int, total: int) -> None:
    """Call the watcher, if there is one: `done` of `total` steps are done."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(done, total)
