"""A progress bar for work that takes longer than a moment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from patchattn.extras import extra
from patchattn.progress import watch_progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

__all__ = ["Stages", "stages"]


class Stages:
    """A progress display: called with the name of each stage as it begins."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def __call__(self, name: str) -> None:
        """Begin a stage of unknown length."""
        # A new task: an existing one cannot go back to an unknown length.
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=None)

    def steps(self, done: int, total: int) -> None:
        """Show that `done` of `total` steps of the stage are done."""
        self._progress.update(self._task, completed=done, total=total)

    def show(self, name: str, done: int, total: int) -> None:
        """Show the same under another name."""
        self._progress.update(self._task, description=name, completed=done, total=total)


@contextmanager
def stages(*, quiet: bool, delay: float = 1.0, console: Console | None = None) -> Iterator[Stages]:
    """Show the stages of the work inside, on stderr, once it has lasted `delay` seconds.

    Nothing is ever shown when `quiet`, or when stderr is no terminal. Nothing stays on the screen.

    Args:
        quiet: show nothing.
        delay: seconds before anything appears.
        console: where to show it; None: stderr.
    """
    with extra("tools"):
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    if console is None:
        console = Console(stderr=True)
        # Not `console.is_terminal`, which color settings in the environment can force for a pipe.
        quiet = quiet or not sys.stderr.isatty()
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    display = Stages(progress)
    appearance = threading.Timer(delay, progress.start)
    appearance.daemon = True
    if not quiet:
        appearance.start()
    try:
        with watch_progress(display.steps):
            yield display
    finally:
        if not quiet:
            appearance.cancel()
            # The timer may be starting the display just now; stopping comes after that.
            appearance.join()
            if progress.live.is_started:
                progress.stop()
