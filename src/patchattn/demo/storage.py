"""Storage of visitors' files, with owners, limits and expiry."""

from __future__ import annotations

import asyncio
import errno
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from patchattn.demo.http import HTTPError
from patchattn.demo.visitor_limits import VisitorLimits

__all__ = ["Entry", "EntryGoneError", "Owner", "Storage"]

CLOSED_PAGE_SECONDS = 60.0
"""Time after which the files of a closed page are removed; one that lost its connection is back by then."""
UNCLAIMED_SECONDS = 600.0
"""Time after which unused files are removed that belong to no open page."""
MAX_UNUSED_SECONDS = 2 * 3600.0
"""Time after which any unused file is removed."""

STORAGE_FULL = "There is no room for more pictures on this page; please try again in some minutes."
REMEDY = "close other tabs of this page, or reload it, and try again in a minute."


class EntryGoneError(ValueError):
    """An entry is not kept any more, or is another visitor's."""

    def __init__(self) -> None:
        super().__init__("This picture is no longer kept here; please open it again.")


@dataclass(frozen=True)
class Owner:
    """An open page: its visitor, and the session of the tab."""

    visitor: str
    session: str = ""
    """Empty while a file was uploaded and no page has opened it yet."""


@dataclass(eq=False)
class Entry:
    """A folder with an upload, or with the results of a job."""

    id: str
    folder: Path
    owner: Owner
    touched: float
    size: int = 0
    users: int = 0
    """Jobs that read or write it now."""
    released: bool = False
    """Whether it is needed no more, apart from the jobs that use it."""


class Storage:
    """A folder for each upload and each result, under names that nobody can guess.

    Everything is called from one thread, the server's event loop.

    Args:
        folder: where the files are.
        limits: on files and bytes.
        clock: seconds from any beginning.
    """

    def __init__(self, folder: Path, limits: VisitorLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._limits, self._clock = folder, limits, clock
        self._entries: dict[str, Entry] = {}
        self._open: Counter[Owner] = Counter()
        self._left: dict[Owner, float] = {}

    # ---- pages that are open ----

    @contextmanager
    def page(self, owner: Owner) -> Iterator[None]:
        """Mark a page as open while the context lasts; its files are removed some time after it was closed."""
        self._open[owner] += 1
        self._left.pop(owner, None)
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]
                self._left[owner] = self._clock()
                self._sweep_after(CLOSED_PAGE_SECONDS)

    def sweep(self) -> None:
        """Remove files that are needed no more."""
        now = self._clock()
        owners = {entry.owner for entry in self._entries.values()}
        self._left = {
            owner: since for owner, since in self._left.items() if owner in owners or now - since < CLOSED_PAGE_SECONDS
        }
        for entry in list(self._entries.values()):
            idle = now - entry.touched
            left = self._left.get(entry.owner)
            closed = left is not None and now - left >= CLOSED_PAGE_SECONDS
            unseen = entry.owner not in self._open and left is None and idle >= UNCLAIMED_SECONDS
            if not entry.users and (entry.released or closed or unseen or idle >= MAX_UNUSED_SECONDS):
                self._remove(entry)

    # ---- room ----

    def check_room(self, visitor: str, size: int = 0) -> None:
        """Raise `HTTPError` if a file of so many bytes more exceeds a limit, of this visitor or of all."""
        self.sweep()
        own = [entry for entry in self._entries.values() if entry.owner.visitor == visitor]
        if len(own) >= self._limits.visitor_files:
            raise HTTPError(413, f"You have {len(own)} files here, and no more are kept; {REMEDY}")
        if len(self._entries) >= self._limits.total_files:
            raise HTTPError(507, STORAGE_FULL)
        self._check_bytes(visitor, size)

    def _check_bytes(self, visitor: str, more: int) -> None:
        each, total = self._limits.visitor_megabytes, self._limits.total_megabytes
        if self.used(visitor) + more > each * 1e6:
            raise HTTPError(
                413, f"This page keeps up to {each:g} MB for a visitor, and with this file it is more; {REMEDY}"
            )
        if self.used() + more > total * 1e6:
            raise HTTPError(507, STORAGE_FULL)

    def used(self, visitor: str | None = None) -> int:
        """The bytes of all files, or of a visitor's."""
        return sum(entry.size for entry in self._entries.values() if visitor in (None, entry.owner.visitor))

    # ---- entries ----

    def add(self, owner: Owner) -> Entry:
        """Create an entry; raise `HTTPError` if there is no room."""
        self.check_room(owner.visitor)
        name = secrets.token_urlsafe(16)
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        entry = self._entries[name] = Entry(name, folder, owner, self._clock())
        self._sweep_after(UNCLAIMED_SECONDS)
        return entry

    @contextmanager
    def upload(self, visitor: str, name: str) -> Iterator[tuple[Entry, Callable[[bytes], None]]]:
        """Create an entry for an upload; yield it, and a function that writes its next bytes or raises `HTTPError`.

        It is removed if the context ends with an exception.
        """
        entry = self.add(Owner(visitor))
        entry.users += 1
        try:
            with (entry.folder / name).open("xb") as file:
                yield entry, lambda content: self._write(entry, file, content)
        except BaseException as error:
            self._remove(entry)
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise HTTPError(507, "The disk of this machine is full; please try again later.") from error
            raise
        entry.users -= 1

    def _write(self, entry: Entry, file: BinaryIO, content: bytes) -> None:
        if entry.size + len(content) > self._limits.megabytes * 1e6:
            raise HTTPError(
                413, f"The file is larger than {self._limits.megabytes:g} MB, and this page takes no larger ones."
            )
        self._check_bytes(entry.owner.visitor, len(content))
        file.write(content)
        entry.size += len(content)

    def claim(self, owner: Owner, name: str) -> Path:
        """Give an upload to this page, and return its path; raise a `ValueError` if there is none."""
        entry = self._entries.get(name)
        if entry is None or entry.owner.visitor != owner.visitor or entry.released:
            raise EntryGoneError
        entry.owner, entry.touched = owner, self._clock()
        (path,) = entry.folder.iterdir()
        return path

    @contextmanager
    def using(self, names: Iterable[str], visitor: str) -> Iterator[None]:
        """Keep entries while the context lasts; raise a `ValueError` if one is gone, or is another visitor's."""
        entries = [self._entries.get(name) for name in names]
        if any(entry is None or entry.owner.visitor != visitor for entry in entries):
            raise EntryGoneError
        found = [entry for entry in entries if entry is not None]
        for entry in found:
            entry.users += 1
            entry.touched = self._clock()
        try:
            yield
        finally:
            for entry in found:
                entry.users -= 1
                if entry.released and not entry.users:
                    self._remove(entry)

    def update_size(self, entry: Entry) -> None:
        """Measure the files that were written into an entry's folder.

        Raises:
            HTTPError: the limit was exceeded before. The size of a result is known when it is written, so that one
                result may exceed it, but not those that were started at the same time and come after it.
        """
        self._check_bytes(entry.owner.visitor, 0)
        entry.size = sum(path.stat().st_size for path in entry.folder.iterdir())

    def release(self, names: Iterable[str], visitor: str) -> None:
        """Remove these entries of a visitor, as soon as no job uses them."""
        for name in names:
            entry = self._entries.get(name)
            if entry is not None and entry.owner.visitor == visitor:
                entry.released = True
                if not entry.users:
                    self._remove(entry)

    def find(self, visitor: str, name: str, file: str) -> Path | None:
        """Find the path of a visitor's file; None if there is none of this name."""
        entry = self._entries.get(name)
        if entry is None or entry.owner.visitor != visitor:
            return None
        entry.touched = self._clock()
        # Compared with what is there, so that no name leads anywhere else.
        return next((path for path in entry.folder.iterdir() if path.name == file), None)

    def _remove(self, entry: Entry) -> None:
        self._entries.pop(entry.id, None)
        shutil.rmtree(entry.folder, ignore_errors=True)

    def _sweep_after(self, seconds: float) -> None:
        with suppress(RuntimeError):  # no loop runs: whoever calls sweeps
            asyncio.get_running_loop().call_later(seconds + 1, self.sweep)
