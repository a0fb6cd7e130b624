"""A progress bar for work that takes longer than a moment."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from patchattn.progress import watch_progress

__all__ = ["Stages", "stages"]


class Stages:
    """What the work tells: call it with the name of each stage as it begins.

    Any of the calls raises KeyboardInterrupt once the work was interrupted.
    """

    def __init__(self, progress: Progress, stop_if_asked: Callable[[], None]) -> None:
        self._progress, self._stop_if_asked = progress, stop_if_asked
        self._task = progress.add_task("starting", total=None)

    def __call__(self, name: str) -> None:
        """Begin a stage of unknown length."""
        self._stop_if_asked()
        # A new task: an existing one cannot go back to an unknown length.
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name, total=None)

    def steps(self, done: int, total: int) -> None:
        """Tell that `done` of `total` steps of the stage are done."""
        self._stop_if_asked()
        self._progress.update(self._task, completed=done, total=total)

    def tell(self, name: str, done: int, total: int) -> None:
        """Tell the same under another name."""
        self._stop_if_asked()
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
    if console is None:
        console = Console(stderr=True)
        # Not `console.is_terminal`, which colour settings in the environment can force for a pipe.
        quiet = quiet or not sys.stderr.isatty()
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    appearance = threading.Timer(delay, progress.start)
    appearance.daemon = True
    if not quiet:
        appearance.start()
    try:
        with _lasting_interruption() as stop_if_asked:
            display = Stages(progress, stop_if_asked)
            with watch_progress(display.steps):
                yield display
    finally:
        if not quiet:
            appearance.cancel()
            # The timer may be starting the display just now; stopping comes after that.
            appearance.join()
            if progress.live.is_started:
                progress.stop()


@contextmanager
def _lasting_interruption() -> Iterator[Callable[[], None]]:
    """Remember Ctrl-C, and raise it when asked: an interruption is lost where it comes while a compiled library calls
    back, as LLVM does.
    """
    asked = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        asked.set()
        signal.default_int_handler(number, frame)

    def stop_if_asked() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    # Signals belong to the main thread, and another's handler to whoever set it.
    main = threading.current_thread() is threading.main_thread()
    ours = main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield stop_if_asked
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
