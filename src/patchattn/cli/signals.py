"""Ctrl-C, SIGTERM and SIGHUP: all three end a command quietly, and nothing half written stays behind."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

__all__ = ["Interrupted", "interruptible"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
REPEAT_SECONDS = 1.0
"""Time after a signal in which another one is ignored, lest an impatient second Ctrl-C interrupt the cleanup."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread when one of the signals arrives; the handlers before are put back.

    A signal that the process was started to ignore (`nohup`) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    usual = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, before in usual.items() if before is not signal.SIG_IGN and before is not None]
    hooks = sys.unraisablehook, sys.excepthook
    for number in heard:
        signal.signal(number, handler.interrupt)
    sys.unraisablehook, sys.excepthook = handler.send_again, handler.show
    try:
        yield
        handler.check()
    except Exception as error:
        # The initialization of a package, and code of other languages, turn the interruption into errors of their own.
        handler.check(error)
        raise
    finally:
        handler.close()
        sys.unraisablehook, sys.excepthook = hooks
        for number in heard:
            signal.signal(number, usual[number])


class _Handler:
    """Interrupts the main thread, and remembers that it did."""

    def __init__(self) -> None:
        self._interrupted: Interrupted | None = None
        self._last = -REPEAT_SECONDS
        self._timers: list[threading.Timer] = []
        self._unraisable, self._uncaught = sys.unraisablehook, sys.excepthook

    def interrupt(self, number: int, frame: object) -> None:
        """Handle a signal."""
        before, self._last = self._last, time.monotonic()
        if self._last - before >= REPEAT_SECONDS:
            self._interrupted = Interrupted(number)
            raise self._interrupted

    def check(self, cause: Exception | None = None) -> None:
        """Raise the interruption, if there was one."""
        if self._interrupted is not None:
            raise self._interrupted from cause

    def send_again(self, unraisable: Any) -> None:
        """Interrupt anew: code of another language was interrupted, and could not pass the exception on."""
        error = unraisable.exc_value
        if not isinstance(error, Interrupted):
            self._unraisable(unraisable)
            return
        timer = threading.Timer(REPEAT_SECONDS, signal.pthread_kill, (threading.main_thread().ident, error.number))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def show(self, kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
        """Print an exception, but for interruptions: Cython prints what it cannot pass on."""
        if not isinstance(error, Interrupted):
            self._uncaught(kind, error, place)

    def close(self) -> None:
        """Send nothing more."""
        for timer in self._timers:
            timer.cancel()
