"""Processes that tests start."""

from __future__ import annotations

import signal

__all__ = ["heed_signals"]


def heed_signals() -> None:
    """Let a new process do with signals what is usual (`preexec_fn`).

    Where the tests run in the background of a shell, or under nohup, they ignore some, and what they start would too.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
