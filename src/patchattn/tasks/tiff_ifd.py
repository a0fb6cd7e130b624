"""Image file directories (IFD) of TIFF and EXIF: read and written without changing any value."""

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
    "ByteLayout",
    "ByteOrder",
    "Directory",
    "Entry",
    "Reader",
    "TagSelection",
    "pack_directory",
    "swapped",
]

ByteOrder = Literal["<", ">"]

BYTE, SHORT, LONG, RATIONAL, LONG8 = 1, 3, 4, 5, 16

BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
"""Size of one value by field type, in bytes; 129 is the UTF-8 of EXIF 3."""

WORDS = BYTES | {5: 4, 10: 4}
"""Size of the integers that make up one value, by field type (for byte swapping)."""


@dataclass(frozen=True)
class ByteLayout:
    """Byte order and offset size of a TIFF file."""

    order: ByteOrder = "<"
    """Byte order, as a `struct` prefix."""
    big: bool = False
    """BigTIFF: offsets have 8 bytes."""

    @property
    def count(self) -> str:
        """`struct` format of the number of entries."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry(self) -> str:
        """`struct` format of an entry: tag, field type, number of values, and the values or their offset."""
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
    """Offset of the data in the output file; None: to be written with the directory."""


@dataclass
class Directory:
    """An image file directory: tags with their values, and tags of sub-directories."""

    entries: dict[int, Entry] = field(default_factory=dict)
    children: dict[int, Directory] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.entries or self.children)


class TagSelection(NamedTuple):
    """Selection of tags to read from a directory."""

    tags: Collection[int] | None = None
    """None: all."""
    children: Mapping[int, TagSelection] = {}
    """Tags of sub-directories, with the selection to read from each."""
    if_sound: bool = False
    """Skip the directory if anything in it cannot be read."""


class Reader:
    """Reader of directories from a TIFF file or an EXIF block.

    Args:
        file: open for reading.

    Raises:
        ValueError: it does not begin like TIFF.
    """

    sound = True
    """False once something could not be read; the rest is read all the same."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._length = file.seek(0, os.SEEK_END)
        head = self._bytes(0, min(16, self._length))
        kind = {
            b"II*\0": ByteLayout("<"),
            b"MM\0*": ByteLayout(">"),
            b"II+\0": ByteLayout("<", True),
            b"MM\0+": ByteLayout(">", True),
        }
        if head[:4] not in kind or len(head) < 8:
            raise ValueError("it does not begin with the header of TIFF")
        self.layout = kind[head[:4]]
        self.first = self.layout.number(head[8:16] if self.layout.big else head[4:8])
        """Offset of the first directory."""
        self.places: dict[int, int] = {}
        """Offsets of the values that are not stored in their directory, by tag."""

    def directory(self, offset: int, wanted: TagSelection) -> Directory:
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
        """Yield the top-level directories once each: position of the offset, and the offset."""
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
        stored = struct.unpack(self.layout.count, start)[0]
        there = min(stored, (self._length - offset - len(start)) // size)
        self.sound = self.sound and there == stored
        return list(struct.iter_unpack(self.layout.entry, self._bytes(offset + len(start), there * size)))

    def _bytes(self, offset: int, size: int) -> bytes:
        """Read bytes; empty if the file ends before."""
        if offset + size > self._length:
            self.sound = False
            return b""
        self._file.seek(offset)
        return self._file.read(size)


def swapped(directory: Directory) -> Directory:
    """Return a directory with its values byte-swapped."""
    entries = {
        tag: entry._replace(data=_swapped(entry.data, WORDS.get(entry.kind, 1)))
        for tag, entry in directory.entries.items()
    }
    return Directory(entries, {tag: swapped(child) for tag, child in directory.children.items()})


def _swapped(data: bytes, width: int) -> bytes:
    return b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))


def pack_directory(directory: Directory, layout: ByteLayout, start: int) -> bytes:
    """Serialize a directory at the even offset `start`, followed by its values and sub-directories."""
    tags = sorted([*directory.entries, *directory.children])
    width = struct.calcsize(layout.offset)
    table = struct.pack(layout.count, len(tags))
    values = b""
    after = start + len(table) + len(tags) * struct.calcsize(layout.entry) + width
    for tag in tags:
        here = after + len(values)
        if tag in directory.children:
            kind, count, stored = LONG8 if layout.big else LONG, 1, here
            values += pack_directory(directory.children[tag], layout, here)
        else:
            kind, data, place = directory.entries[tag]
            count, stored = len(data) // BYTES[kind], here if place is None else place
            if len(data) <= width:
                table += struct.pack(layout.entry, tag, kind, count, data)
                continue
            if place is None:
                values += data + bytes(len(data) % 2)
        table += struct.pack(layout.entry, tag, kind, count, struct.pack(layout.offset, stored))
    return table + bytes(width) + values
