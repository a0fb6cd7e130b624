"""Errors that a user can do something about, and warnings, in one sentence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from rich.console import Console

from patchattn.tasks.warnings import FileWarning

__all__ = ["EXIT_CODE", "one_sentence_errors"]

EXIT_CODE = 2
"""The exit code after an error, the same as for a wrong option; 130 after an interruption from the keyboard."""


@contextmanager
def one_sentence_errors() -> Iterator[None]:
    """Print the library's warnings and errors on stderr without a traceback, and exit after an error."""
    try:
        with _one_sentence_warnings():
            yield
    except MemoryError:
        _fail("there is not enough memory for this; use smaller pictures or a smaller --k.")
    except (ValueError, RuntimeError, OSError) as error:
        _fail(str(error) or type(error).__name__)


@contextmanager
def _one_sentence_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("always", FileWarning)
        # Pillow's own words on damaged metadata name no file.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, FileWarning):
                _print(f"warning: {message}", "yellow")
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


def _fail(message: str) -> None:
    _print(message, "red")
    raise typer.Exit(EXIT_CODE)


def _print(message: str, style: str) -> None:
    # Without soft_wrap a path would be broken at the terminal's edge and could not be copied.
    Console(stderr=True).print(message, style=style, markup=False, highlight=False, soft_wrap=True)
