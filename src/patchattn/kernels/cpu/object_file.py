"""Files of machine code that come with the package: a line of JSON that says what is where, then the code."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

__all__ = ["ObjectFile", "write_objects"]

Stamp = dict[str, str]


def write_objects(path: Path, stamp: Stamp, objects: Mapping[str, bytes]) -> None:
    """Write the objects, by name, and the stamp of all that they depend on."""
    entries, blobs, offset = {}, [], 0
    for name in sorted(objects):
        blob = zlib.compress(objects[name], 9)
        entries[name] = [offset, len(blob), hashlib.sha256(blob).hexdigest()]
        blobs.append(blob)
        offset += len(blob)
    header = json.dumps({"stamp": stamp, "entries": entries}, sort_keys=True)
    path.write_bytes(b"\n".join([header.encode(), b"".join(blobs)]))


class ObjectFile:
    """A file of objects, each of which is read when it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            line = file.readline()
        header = json.loads(line)
        self.stamp: Stamp = header["stamp"]
        self._entries: dict[str, tuple[int, int, str]] = header["entries"]
        self._start = len(line)

    def read(self, name: str) -> bytes | None:
        """Return an object, None if there is none of that name.

        Raises:
            ValueError: the file is damaged. Code that is damaged would be run.
        """
        if name not in self._entries:
            return None
        offset, size, digest = self._entries[name]
        with self.path.open("rb") as file:
            file.seek(self._start + offset)
            blob = file.read(size)
        if hashlib.sha256(blob).hexdigest() != digest:
            raise ValueError(f"{self.path.name} is damaged")
        return zlib.decompress(blob)
