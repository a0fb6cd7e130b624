"""Errors that a user can do something about, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

__all__ = ["EXIT_CODE", "one_sentence_errors"]

EXIT_CODE = 2
"""The exit code after an error, the same as for a wrong option; 130 after an interruption from the keyboard."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Print the library's errors on stderr without a traceback, and exit."""
    try:
        yield
    except MemoryError:
        _fail("there is not enough memory for this; use smaller pictures or a smaller --k.")
    except (ValueError, RuntimeError, OSError) as error:
        _fail(str(error) or type(error).__name__)


def _fail(message: str) -> None:
    # Without soft_wrap a path would be broken at the terminal's edge and could not be copied.
    Console(stderr=True).print(message, style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_CODE)
