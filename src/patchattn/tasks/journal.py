"""Journal of finished results in the output folder, by which a later run resumes."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["JOURNAL", "Journal", "digest_of", "digest_of_file"]

JOURNAL = ".patchattn-journal.jsonl"
"""File name of the journal in the output folder."""

Event = Literal["begun", "done", "failed"]


@dataclass(frozen=True)
class Done:
    """A journal entry of a finished result."""

    key: str
    result: str
    """Path of the result relative to the folder."""
    digest: str
    """Digest of the file's content."""


class Journal:
    """Journal as a file of JSON lines, one per event: a source was begun, done or failed.

    A line counts when it is whole: a process that is killed in the middle of writing one loses that event alone. The
    key of a source is a digest of all that its result depends on (the content of what is read, the command, its
    settings, the version), so that a result of other settings or of another image never counts as done; and a result
    counts only as long as its content is what was recorded.

    Args:
        folder: of the results; it is there.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.png").write_bytes(b"result")
        >>> Journal(folder).done("a.jpg", "key", folder / "a.png")
        >>> Journal(folder).result_of("a.jpg", "key").name, Journal(folder).result_of("a.jpg", "other key")
        ('a.png', None)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / JOURNAL
        self._done: dict[str, Done] = {}
        self._unfinished: Counter[str] = Counter()
        self._failed: set[str] = set()
        for entry in _entries(self._path):
            with suppress(KeyError, TypeError):
                self._take(entry)

    def result_of(self, source: str, key: str) -> Path | None:
        """Return the unchanged result of a source that was finished under this key, or None."""
        done = self._done.get(source)
        if done is None or done.key != key:
            return None
        path = self._folder / done.result
        try:
            return path if digest_of_file(path) == done.digest else None
        except OSError:
            return None

    def attempts(self, source: str) -> int:
        """Count how often the process ended while working on a source since it was last done or failed."""
        return self._unfinished[source]

    def failed(self, source: str) -> bool:
        """Return whether the last attempt at a source failed or ended with the process."""
        return source in self._failed or self._unfinished[source] > 0

    def begin(self, source: str) -> None:
        """Record that work on a source begins."""
        self._add(event="begun", source=source)

    def done(self, source: str, key: str, result: Path) -> None:
        """Record that a result has been written."""
        name = result.relative_to(self._folder).as_posix()
        self._add(event="done", source=source, key=key, result=name, digest=digest_of_file(result))

    def fail(self, source: str) -> None:
        """Record that work on a source failed, if the disk has room."""
        with suppress(OSError):
            self._add(event="failed", source=source)

    def _add(self, **entry: Any) -> None:
        with self._path.open("ab") as file:
            # After a line that was cut, a new one.
            start = b"\n" if file.tell() and not _ends_with_newline(self._path) else b""
            file.write(start + json.dumps(entry).encode() + b"\n")
            file.flush()
            if entry["event"] == "done":
                os.fsync(file.fileno())
        self._take(entry)

    def _take(self, entry: dict[str, Any]) -> None:
        event, source = entry["event"], entry["source"]
        if event == "begun":
            self._unfinished[source] += 1
            return
        self._unfinished[source] = 0
        if event == "failed":
            self._failed.add(source)
        elif event == "done":
            self._failed.discard(source)
            self._done[source] = Done(entry["key"], entry["result"], entry["digest"])


def digest_of(*parts: str) -> str:
    """Return a digest of a sequence of texts; their order and boundaries count."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def digest_of_file(path: Path) -> str:
    """Return a digest of a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _entries(path: Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            yield entry


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
