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
"""A signal is ignored for so long after the one before it, lest an impatient second Ctrl-C interrupt the cleanup."""


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the main thread when one of the signals arrives; the handlers before are put back.

    A signal that the process was started to ignore (`nohup`) stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    last = -REPEAT_SECONDS
    timers: list[threading.Timer] = []
    interrupted: Interrupted | None = None

    def interrupt(number: int, frame: object) -> None:
        nonlocal last, interrupted
        before, last = last, time.monotonic()
        if last - before >= REPEAT_SECONDS:
            interrupted = Interrupted(number)
            raise interrupted

    def send_again(unraisable: Any) -> None:
        """An interruption met code of another language that could not pass it on: interrupt what comes after it."""
        if isinstance(unraisable.exc_value, Interrupted):
            number = unraisable.exc_value.exit_code - 128
            timers.append(threading.Timer(REPEAT_SECONDS, signal.pthread_kill, (threading.main_thread().ident, number)))
            timers[-1].daemon = True
            timers[-1].start()
        else:
            usual_hook(unraisable)

    def show(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
        """Cython prints what it cannot pass on; of an interruption there is nothing to say."""
        if not isinstance(error, Interrupted):
            usual_show(kind, error, place)

    usual_hook, sys.unraisablehook = sys.unraisablehook, send_again
    usual_show, sys.excepthook = sys.excepthook, show
    usual = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number, handler in usual.items() if handler is not signal.SIG_IGN and handler is not None]
    for number in heard:
        signal.signal(number, interrupt)
    try:
        yield
        if interrupted is not None:
            raise interrupted
    except Exception as error:
        # The initialization of a package, and code of other languages, turn the interruption into errors of their own.
        if interrupted is not None:
            raise interrupted from error
        raise
    finally:
        sys.unraisablehook, sys.excepthook = usual_hook, usual_show
        for timer in timers:
            timer.cancel()
        for number in heard:
            signal.signal(number, usual[number])
