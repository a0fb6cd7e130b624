"""Errors that a user can do something about, and warnings, in one sentence."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

import typer

from patchattn.cli.arguments import as_typed, has_option
from patchattn.cli.signals import Interrupted, interruptible
from patchattn.tasks.memory_errors import out_of_memory
from patchattn.tasks.warnings import FileWarning

__all__ = ["EXIT_CODE", "one_sentence_errors"]

EXIT_CODE = 2
"""The exit code after an error, the same as for a wrong option; 128 and the signal's number after an interruption."""


@contextmanager
def one_sentence_errors(*, debug: bool = False) -> Iterator[list[str]]:
    """Print the library's warnings and errors on stderr without a traceback, and exit after an error.

    Args:
        debug: print an error's traceback too, before its sentence.

    Yields:
        The warnings so far.
    """
    warned: list[str] = []
    try:
        with interruptible(), _one_sentence_warnings(warned):
            yield warned
    except Interrupted as interrupted:
        raise typer.Exit(interrupted.exit_code) from None
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        if debug:
            _print(traceback.format_exc().rstrip(), "bright_black")
        _print(_sentence(error), "red")
        raise typer.Exit(EXIT_CODE) from error


def _sentence(error: Exception) -> str:
    memory = out_of_memory(error)
    if memory is None:
        return as_typed(str(error) or type(error).__name__)
    return f"{memory}; use a smaller image{' or a smaller --k' if has_option('k') else ''}."


@contextmanager
def _one_sentence_warnings(warned: list[str]) -> Iterator[None]:
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
            if not issubclass(category, FileWarning):
                others(message, category, filename, lineno, file, line)
                return
            text = as_typed(str(message))
            warned.append(text)
            _print(f"warning: {text}", "yellow")

        warnings.showwarning = show
        yield


def _print(message: str, style: str) -> None:
    with suppress(OSError):  # a closed or full standard error is no reason to fail
        typer.secho(message, fg=style, err=True)
