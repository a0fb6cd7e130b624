"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

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

    Args:
        path: where the file will be.
        argument: what an error calls `path`.

    Yields:
        The open file.

    Raises:
        ValueError: see `check_output_file`; also when the file system refuses to write.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> with atomic_writer(folder / "a.txt") as file:
        ...     _ = file.write(b"whole")
        >>> [entry.name for entry in folder.iterdir()]
        ['a.txt']
    """
    final = check_output_file(path, argument=argument)
    temporary = final.with_name(f".{final.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        # Not `tempfile`: its files are readable by their owner alone, and these should follow the user's umask.
        file = temporary.open("x+b")
    except OSError as error:
        raise ValueError(f"{argument}: cannot write {path}: {error.strerror}.") from error
    try:
        with file:
            yield file
            file.flush()
            # On the disk before the rename, or a crash of the machine could leave an empty file under the final name.
            os.fsync(file.fileno())
        if final.exists():
            temporary.chmod(stat.S_IMODE(final.stat().st_mode))
        os.replace(temporary, final)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ValueError(f"{argument}: cannot write {path}: {error.strerror or error}.") from error
        raise
