"""Atomic file writing."""

from __future__ import annotations

import errno
import io
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

__all__ = ["atomic_writer", "check_input_file", "check_output_file"]

PathLike = str | os.PathLike[str]


def check_input_file(path: PathLike, *, argument: str = "path") -> Path:
    """Return `path` if a file is there.

    Raises:
        ValueError: nothing is there, or something else than a file; the message names `argument`.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{argument}: there is no file {path}.")
    if not path.is_file():
        raise ValueError(f"{argument}: {path} is not a file; expected a file to read.")
    return path


def check_output_file(path: PathLike, *, argument: str = "path") -> Path:
    """Return `path`, with symbolic links followed, if a file can be written there.

    Raises:
        ValueError: the folder is missing or not writable, or something else than a file is there; the message names
            `argument`.
    """
    # Links are followed, so that the file is replaced and not the link to it.
    resolved = Path(os.path.realpath(path))
    folder = resolved.parent
    if not folder.is_dir():
        raise ValueError(f"{argument}: cannot write {path}: there is no folder {folder}; create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{argument}: cannot write {path}: the folder {folder} is not writable; choose another.")
    # Renaming over a device (/dev/null) would replace it.
    if resolved.exists() and not resolved.is_file():
        raise ValueError(f"{argument}: cannot write {path}: it exists and is not a file; choose another name.")
    return resolved


@contextmanager
def atomic_writer(path: PathLike, *, argument: str = "path") -> Iterator[BinaryIO]:
    """Open a binary file, to write and read, that takes the name `path` only when everything has been written.

    It is written beside its final place under a temporary name and then renamed. On any failure, an interruption from
    the keyboard included, the temporary file is removed and what was at `path` stays as it was. An existing file's
    permissions are kept.

    A write counts as done when the system has taken every byte: a write that failed fails the whole file, even where
    the program that wrote (an encoder, say) went on as if nothing had happened; and the size on the disk is compared
    with what was written before the rename.

    Args:
        path: where the file will be.
        argument: what an error calls `path`.

    Yields:
        The open file. It has no file descriptor, so that nobody writes past it.

    Raises:
        ValueError: see `check_output_file`; also when the file system refuses to write (no space left, say).

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with atomic_writer(folder / "a.txt") as file:
        ...     _ = file.write(b"whole")
        >>> [entry.name for entry in folder.iterdir()]
        ['a.txt']
    """
    final = check_output_file(path, argument=argument)
    temporary = final.with_name(f".{_shortened(final.name)}.{secrets.token_hex(4)}.part")
    try:
        # Not `tempfile`: its files are readable by their owner alone, and these should follow the user's umask.
        raw = temporary.open("x+b", buffering=0)
    except OSError as error:
        raise ValueError(f"{argument}: cannot write {path}: {error.strerror}.") from error
    try:
        with raw, _no_lost_interruption():
            file = CheckedFile(raw)
            try:
                yield cast("BinaryIO", file)
            finally:
                file.check()
            # On the disk before the rename, or a crash of the machine could leave an empty file under the final name.
            os.fsync(raw.fileno())
            file.check_size()
        if final.exists():
            temporary.chmod(stat.S_IMODE(final.stat().st_mode))
        os.replace(temporary, final)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ValueError(f"{argument}: cannot write {path}: {error.strerror or error}.") from error
        raise
    _sync_folder(final.parent)


@contextmanager
def _no_lost_interruption() -> Iterator[None]:
    """Raise a KeyboardInterrupt on exit that foreign code has swallowed.

    FFmpeg calls Python to write. A signal that arrives then raises an exception that cannot pass through FFmpeg: it is
    reported as unraisable, the bytes are lost, and the work goes on as if nothing had happened.
    """
    lost: list[BaseException] = []
    usual = sys.unraisablehook

    def remember(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            lost.append(unraisable.exc_value)
        else:
            usual(unraisable)

    sys.unraisablehook = remember
    try:
        yield
    finally:
        sys.unraisablehook = usual
        if lost:
            raise lost[0]


class CheckedFile(io.RawIOBase):
    """A file that records failed writes.

    Encoders call `write` once and ignore that it may take less than it was given, and some of them ignore errors. Here
    a write goes on until every byte is taken, and the first error is kept for `check`.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._error: OSError | None = None
        self._end = 0

    def check(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self._error is not None:
            raise self._error

    def check_size(self) -> None:
        """Raise an OSError if the file on the disk has another size than what was written."""
        size = os.fstat(self._raw.fileno()).st_size
        if size != self._end:
            raise OSError(errno.EIO, f"{size} of {self._end} bytes are on the disk")

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while left:
                taken = self._raw.write(left)
                if not taken:
                    raise OSError(errno.EIO, "the system took no more bytes")
                left = left[taken:]
        except OSError as error:
            self._error = self._error or error
            raise
        self._end = max(self._end, self._raw.tell())
        return size

    def readinto(self, buffer: Any) -> int | None:
        return self._raw.readinto(buffer)

    def truncate(self, size: int | None = None) -> int:
        self._end = self._raw.truncate(size)
        return self._end

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _shortened(name: str) -> str:
    """Truncate a name to leave room for a suffix within the file system's limit of 255 bytes."""
    return os.fsdecode(os.fsencode(name)[:200]) if len(os.fsencode(name)) > 200 else name


def _sync_folder(folder: Path) -> None:
    """Sync a folder so that a rename survives a crash, where the system supports it."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
