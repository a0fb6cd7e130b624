"""Directories of tags as TIFF lays them out, which EXIF took over: read, and written without a change to any value."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, NamedTuple

__all__ = [
    "BYTE",
    "BYTES",
    "LONG",
    "RATIONAL",
    "SHORT",
    "ByteOrder",
    "Directory",
    "Entry",
    "Layout",
    "Reader",
    "Wanted",
    "pack_directory",
    "swapped",
]

ByteOrder = Literal["<", ">"]

BYTE, SHORT, LONG, RATIONAL, LONG8 = 1, 3, 4, 5, 16

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
"""How long one value of each kind is; 129 is the UTF-8 of EXIF 3."""

WORDS = BYTES | {5: 4, 10: 4}
"""How long the numbers are of which one value of each kind is made."""


@dataclass(frozen=True)
class Layout:
    """How a file lays out its numbers."""

    order: ByteOrder = "<"
    """The byte order, as `struct` writes it."""
    big: bool = False
    """BigTIFF: offsets have 8 bytes."""

    @property
    def count(self) -> str:
        """The format of the number of entries."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """The format of an entry: tag, kind, number of values, and the values or the offset of them."""
        return self.order + ("HHQ8s" if self.big else "HHI4s")

    @property
    def offset(self) -> str:
        return self.order + ("Q" if self.big else "I")

    def number(self, data: bytes) -> int:
        return int.from_bytes(data, "little" if self.order == "<" else "big")


class Entry(NamedTuple):
    """The values of one tag."""

    kind: int
    data: bytes
    """The values in the file's byte order."""
    place: int | None = None
    """Where the data are in the file that is written; None: they are still to be written, with the directory."""


@dataclass
class Directory:
    """Tags with their values, and tags that lead to further directories."""

    entries: dict[int, Entry] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.entries or self.children)


class Wanted(NamedTuple):
    """What to read of a directory."""

    tags: Collection[int] | None = None
    """None: all."""
    children: Mapping[int, Wanted] = {}
    """The tags that lead to further directories, and what to read of those."""
    if_sound: bool = False
    """Leave it out if anything in it cannot be read, as if it were not there."""


class Reader:
    """Reads directories from a TIFF file, or from a block of EXIF, which begins like one.

    Args:
        file: open for reading.

    Raises:
        ValueError: it does not begin like TIFF.
    """

    sound = True
    """False as soon as something could not be read; the rest is read all the same."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        head = self._bytes(0, min(16, self._length))
        kind = {b"II*\0": Layout("<"), b"MM\0*": Layout(">"), b"II+\0": Layout("<", True), b"MM\0+": Layout(">", True)}
        if head[:4] not in kind or len(head) < 8:
            raise ValueError("it does not begin with the header of TIFF")
        self.layout = kind[head[:4]]
        self.first = self.layout.number(head[8:16] if self.layout.big else head[4:8])
        """The offset of the first directory."""
        self.places: dict[int, int] = {}
        """Where the values of the tags read lie, of those that do not lie in their directory."""

    def directory(self, offset: int, wanted: Wanted) -> Directory:
        """Read the directory at an offset."""
        sound_before, self.sound = self.sound, True
        found = Directory()
        for tag, kind, count, inline in self._rows(offset):
            if tag in found.entries or not (wanted.tags is None or tag in wanted.tags or tag in wanted.children):
                continue
            size = BYTES.get(kind, 0) * count
            inside = size <= len(inline)
            data = inline[:size] if inside else self._bytes(self.layout.number(inline), size)
            if kind not in BYTES or len(data) < size:
                self.sound = False
            elif tag not in wanted.children:
                found.entries[tag] = Entry(kind, data)
                if not inside:
                    self.places[tag] = self.layout.number(inline)
            elif child := self.directory(self.layout.number(data), wanted.children[tag]):
                found.children[tag] = child
        dropped = wanted.if_sound and not self.sound
        self.sound = sound_before and (self.sound or dropped)
        return Directory() if dropped else found

    def pages(self) -> Iterator[tuple[int, int]]:
        """Yield the directories of the first level, once each: where the offset of one lies, and the offset."""
        pointer, offset = 8 if self.layout.big else 4, self.first
        seen: set[int] = set()
        while offset and offset not in seen:
            seen.add(offset)
            yield pointer, offset
            rows = len(self._rows(offset)) * struct.calcsize(self.layout.entry)
            pointer = offset + struct.calcsize(self.layout.count) + rows
            offset = self.layout.number(self._bytes(pointer, struct.calcsize(self.layout.offset)))

    def _rows(self, offset: int) -> list[tuple[int, int, int, bytes]]:
        start = self._bytes(offset, struct.calcsize(self.layout.count))
        if not start:
            return []
        size = struct.calcsize(self.layout.entry)
        told = struct.unpack(self.layout.count, start)[0]
        there = min(told, (self._length - offset - len(start)) // size)
        self.sound = self.sound and there == told
        return list(struct.iter_unpack(self.layout.entry, self._bytes(offset + len(start), there * size)))

    def _bytes(self, offset: int, size: int) -> bytes:
        """Return so many bytes, or none where the file ends before."""
        if offset + size > self._length:
            self.sound = False
            return b""
        self._file.seek(offset)
        return self._file.read(size)


def swapped(directory: Directory) -> Directory:
    """Return a directory with its values in the other byte order."""
    entries = {
        tag: entry._replace(data=_swapped(entry.data, WORDS.get(entry.kind, 1)))
        for tag, entry in directory.entries.items()
    }
    return Directory(entries, {tag: swapped(child) for tag, child in directory.children.items()})


def _swapped(data: bytes, width: int) -> bytes:
    return b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))


def pack_directory(directory: Directory, layout: Layout, start: int) -> bytes:
    """Return a directory as it lies in a file from the even offset `start` on, its values and children after it."""
    tags = sorted([*directory.entries, *directory.children])
    width = struct.calcsize(layout.offset)
    table = struct.pack(layout.count, len(tags))
    values = b""
    after = start + len(table) + len(tags) * struct.calcsize(layout.entry) + width
    for tag in tags:
        here = after + len(values)
        if tag in directory.children:
            kind, count, told = LONG8 if layout.big else LONG, 1, here
            values += pack_directory(directory.children[tag], layout, here)
        else:
            kind, data, place = directory.entries[tag]
            count, told = len(data) // BYTES[kind], here if place is None else place
            if len(data) <= width:
                table += struct.pack(layout.entry, tag, kind, count, data)
                continue
            if place is None:
                values += data + bytes(len(data) % 2)
        table += struct.pack(layout.entry, tag, kind, count, struct.pack(layout.offset, told))
    return table + bytes(width) + values
