"""Sources and targets of image files: paths, streams, and bytes in memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from patchattn.tasks.files import PathLike, atomic_writer, check_input_file, check_output_file

__all__ = ["Source", "Target", "check_target", "extension_of", "name_of", "open_source", "open_target"]


class Readable(Protocol):
    """A binary file or pipe."""

    def read(self) -> bytes: ...


class Writable(Protocol):
    """A binary file or pipe."""

    def write(self, data: bytes, /) -> int: ...


Source = PathLike | Readable | bytes
Target = PathLike | Writable


@contextmanager
def open_source(source: Source, *, argument: str) -> Iterator[BinaryIO]:
    """Open a source as a seekable file; a stream is read into memory.

    Raises:
        ValueError: there is no such file, or it may not be read.
    """
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | os.PathLike):
        path = check_input_file(source, argument=argument)
        try:
            file = path.open("rb")
        except OSError as error:
            raise ValueError(f"{argument}: cannot read {path}: {error.strerror}.") from error
        with file:
            yield file
    else:
        yield io.BytesIO(source.read())


@contextmanager
def open_target(target: Target, *, argument: str) -> Iterator[BinaryIO]:
    """Open a target as a file that can also be read and sought in.

    A path's file appears whole or not at all (`atomic_writer`). A stream gets all bytes at the end, or none.
    """
    if isinstance(target, str | os.PathLike):
        with atomic_writer(target, argument=argument) as file:
            yield file
        return
    memory = io.BytesIO()
    yield memory
    left = memory.getbuffer()
    while left:  # a pipe that is not buffered may take less
        left = left[target.write(cast("bytes", left)) :]


def check_target(target: Target, *, argument: str) -> None:
    """Raise a ValueError if a target cannot be written."""
    if isinstance(target, str | os.PathLike):
        check_output_file(target, argument=argument)


def name_of(file: Source | Target, stream: str = "standard input") -> str:
    """Return the name of a source or target in messages; `stream` if it has no path.

    Example:
        >>> name_of("a.png"), name_of(b"bytes"), name_of(io.BytesIO(), "standard output")
        ('a.png', 'standard input', 'standard output')
    """
    return os.fspath(file) if isinstance(file, str | os.PathLike) else stream


def extension_of(target: Target, format: str | None) -> str:
    """Return the extension that determines the format: `format` if given, else the path's.

    Example:
        >>> extension_of("a.PNG", None), extension_of("a", "tif"), extension_of(io.BytesIO(), None)
        ('.png', '.tif', '')
    """
    if format is not None:
        return "." + format.lower().removeprefix(".")
    return Path(target).suffix.lower() if isinstance(target, str | os.PathLike) else ""
