"""The server's folder for visitors' files, which is removed with the server.

A server that is killed cannot remove its folder; the next one does. A folder belongs to a living server as long as the
file in it is locked, for the system unlocks it when the process ends, however it ends.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

fcntl: Any
try:
    import fcntl
except ImportError:  # where there is no such lock nothing is taken for dead
    fcntl = None

__all__ = ["remove_leftovers", "workspace"]

PREFIX = "patchattn-demo-"
LOCK = "server.lock"


@contextmanager
def workspace() -> Iterator[Path]:
    """A new folder that this user alone can read; removed afterwards, as are those of servers that were killed."""
    base = Path(tempfile.gettempdir())
    remove_leftovers(base)
    folder, lock = _locked_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(base: Path) -> list[Path]:
    """Remove the folders of servers that are dead; return which.

    Left alone are links, what another user owns, and what has no lock file or a locked one.
    """
    return [path for path in sorted(base.glob(f"{PREFIX}*")) if _remove_if_dead(path)]


def _locked_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Another server that starts now may have found the file before it was locked.
        if _try_lock(lock) and folder.is_dir():
            return folder, lock
        os.close(lock)


def _remove_if_dead(folder: Path) -> bool:
    if fcntl is None or not _is_own(folder, stat.S_ISDIR):
        return False
    file = folder / LOCK
    if not _is_own(file, stat.S_ISREG):
        return False
    with suppress(OSError):
        lock = os.open(file, os.O_RDWR | os.O_NOFOLLOW)
        try:
            if _try_lock(lock):
                shutil.rmtree(folder, ignore_errors=True)
                return not folder.exists()
        finally:
            os.close(lock)
    return False


def _is_own(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether a path is of this kind, no link to one, and of this user."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return kind(found.st_mode) and found.st_uid == os.geteuid()


def _try_lock(lock: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
