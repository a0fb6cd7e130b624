"""Standard output and standard error, whatever their encoding."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

__all__ = ["accept_any_text", "check_stdout", "finish", "is_stream", "output_failed", "read_stream", "write_stream"]

HANDLER = "patchattn.any_text"


def accept_any_text() -> None:
    """Let both streams take any text: a file's name may hold bytes that are no UTF-8, and a stream may be no UTF-8.

    The bytes of a name come out as they are; other characters that the stream's encoding lacks as escapes.
    """
    _open_closed()
    codecs.register_error(HANDLER, _encode_anyway)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Where the locale knows no letters beyond ASCII, the terminal most likely does.
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors=HANDLER)


def _open_closed() -> None:
    """Let streams that are closed lead nowhere, lest a file that is opened take their place and get their text."""
    for descriptor in range(3):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _encode_anyway(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    written = b"".join(
        bytes([ord(letter) - 0xDC00]) if 0xDC80 <= ord(letter) <= 0xDCFF else letter.encode("ascii", "backslashreplace")
        for letter in text
    )
    return written, error.end


def finish(code: int) -> int:
    """Flush standard output; return the exit code, 1 where what it holds could not be written.

    A reader that has left (`| head`) is no failure to speak of: the work is done.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Python would flush once more as it ends, and complain.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return output_failed(error) if not isinstance(error, BrokenPipeError) else code
    return code


def output_failed(error: OSError) -> int:
    """Report that standard output could not be written; return the exit code."""
    with suppress(OSError):
        print(f"cannot write to standard output: {error.strerror}.", file=sys.stderr)
    return 1


def is_stream(path: Path | None) -> bool:
    """Whether a path is `-`: standard input or output."""
    return path is not None and str(path) == "-"


def read_stream(*, argument: str) -> bytes:
    """Return all of standard input, each time.

    Raises:
        ValueError: it is a terminal, or closed.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ValueError(f"{argument}: - is standard input, which is a terminal; pipe data in, or name a file.")
    return _content_of(sys.stdin.buffer)


@cache
def _content_of(stream: BinaryIO) -> bytes:
    return stream.read()


def check_stdout(*, argument: str) -> None:
    """Refuse a terminal, and a standard output that is closed."""
    if sys.stdout is None or sys.stdout.isatty():
        raise ValueError(f"{argument}: - is standard output, which is a terminal; redirect it, or name a file.")


def write_stream(data: bytes, *, argument: str) -> None:
    """Write to standard output, every byte.

    Raises:
        ValueError: the system did not take them all.
    """
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        raise ValueError(f"{argument}: cannot write to standard output: {error.strerror}.") from error
