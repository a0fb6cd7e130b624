"""What EXIF tells of a photograph, from and to blocks of EXIF and TIFF files.

Pillow writes question marks for all letters beyond ASCII (the © of a copyright) and guesses the types of numbers anew,
and tifffile writes no directory of EXIF. Here all values stay as they are.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass, field
from fractions import Fraction
from typing import BinaryIO, NamedTuple

from patchattn.tasks.directories import (
    BYTE,
    BYTES,
    LONG,
    RATIONAL,
    SHORT,
    ByteOrder,
    Directory,
    Entry,
    Layout,
    Reader,
    Wanted,
    pack_directory,
    swapped,
)

__all__ = ["Exif", "Taken"]

EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
DESCRIPTION, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x10E, 0x112, 0x11A, 0x11B, 0x128
SOFTWARE, XMP, MAKER_NOTE, WIDTH, HEIGHT = 0x131, 0x2BC, 0x927C, 0xA002, 0xA003
# Make, model, date, artist, host computer; two ratings; copyright; and title, comment, author, keywords and subject as
# Windows writes them.
OTHERS = {0x10F, 0x110, 0x132, 0x13B, 0x13C, 0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0)}
ELSEWHERE = (ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP)
# It says which RGB is meant. Programs that write a file anew often leave a wrong offset of it: no damage to tell of.
RGB_KIND = Wanted({1, 2}, if_sound=True)
WANTED = Wanted(
    {DESCRIPTION, SOFTWARE, *ELSEWHERE} | OTHERS, {EXIF: Wanted(None, {INTEROPERABILITY: RGB_KIND}), GPS: Wanted()}
)
"""What tells of the photograph. All other tags of the first directory tell how the pixels lie in the file, and the
second directory of a block holds a thumbnail of the picture as it was."""

ABOUT_LAYOUT = {DESCRIPTION: rb'\{"shape"|shape=|ImageJ=|<\?xml|<OME', SOFTWARE: rb"tifffile\.py\0"}
"""How texts begin by which programs tell themselves how the pixels lie in a TIFF file."""

INCHES = {None: 1.0, 2: 1.0, 3: 2.54}
"""What a resolution is multiplied with by its unit: inches, which are meant where none is told, or centimeters."""

NEAR = 1 << 14
"""How far back the note of the camera's maker may begin to keep its place."""


class Taken(NamedTuple):
    """What has its place in the pixels, in `Metadata.resolution` and in `Metadata.xmp`."""

    orientation: int | None
    """How the picture has to be turned."""
    resolution: tuple[float, float] | None
    """In pixels per inch, horizontally and vertically; 0: not told."""
    xmp: bytes | None
    """TIFF files hold it among the tags."""


@dataclass
class Exif:
    """What EXIF tells of a photograph."""

    order: ByteOrder = "<"
    """The byte order of the values, as `struct` writes it."""
    main: Directory = field(default_factory=Directory)
    sound: bool = True
    """Whether everything could be read."""

    @classmethod
    def read(cls, file: BinaryIO, page: int = 0) -> Exif:
        """Read a page of a TIFF file, or a block of EXIF, which is laid out like one.

        Raises:
            ValueError: it does not begin like TIFF.
        """
        reader = Reader(file)
        offset = next((offset for number, (_, offset) in enumerate(reader.pages()) if number == page), reader.first)
        main = reader.directory(offset, WANTED)
        for tag, beginning in ABOUT_LAYOUT.items():
            if tag in main.entries and re.match(beginning, main.entries[tag].data):
                del main.entries[tag]
        exif = cls(reader.layout.order, main, reader.sound)
        # It may hold offsets from the start of the block, so that it had better not move.
        place = reader.places.get(MAKER_NOTE)
        exif._place_note(place if place is not None and 8 <= place < NEAR else None)
        return exif

    def take_out(self) -> Taken:
        """Take out what has its place elsewhere once the picture is read."""
        orientation, across, down, unit, xmp = (self.main.entries.pop(tag, None) for tag in ELSEWHERE)
        inches = INCHES.get(self._number(unit))
        resolution = None if inches is None else (self._fraction(across) * inches, self._fraction(down) * inches)
        return Taken(self._number(orientation), resolution, None if xmp is None else xmp.data)

    def set_resolution(self, resolution: tuple[float, float]) -> None:
        """Put in a resolution in pixels per inch."""
        for tag, number in zip((X_RESOLUTION, Y_RESOLUTION), resolution, strict=True):
            ratio = Fraction(number).limit_denominator(1000)
            data = struct.pack(self.order + "II", ratio.numerator, ratio.denominator)
            self.main.entries[tag] = Entry(RATIONAL, data)
        self.main.entries[RESOLUTION_UNIT] = Entry(SHORT, struct.pack(self.order + "H", 2))

    def correct_size(self, size: tuple[int, int]) -> None:
        """Let what it tells of the size be true of a picture of (height, width) pixels."""
        entries = self._photograph.entries
        for tag, number in zip((HEIGHT, WIDTH), size, strict=True):
            if tag in entries:
                entries[tag] = Entry(LONG, struct.pack(self.order + "I", number))

    def block(self) -> bytes | None:
        """Return a block of EXIF; None if there is nothing to tell."""
        if not self.main:
            return None
        note = self._photograph.entries.get(MAKER_NOTE)
        before = b""
        if note is not None and note.place is not None:
            before = bytes(note.place - 8) + note.data + bytes((note.place + len(note.data)) % 2)
        layout = Layout(self.order)
        start = 8 + len(before)
        header = (b"II*\0" if self.order == "<" else b"MM\0*") + struct.pack(layout.offset, start)
        return header + before + pack_directory(self.main, layout, start)

    def append_to(self, file: BinaryIO, xmp: bytes | None) -> None:
        """Put all of this, and XMP, into the last page of a TIFF file.

        Its directory is written anew at its end; what the old one led to stays where it is.
        """
        reader = Reader(file)
        *_, (pointer, last) = reader.pages()
        if reader.layout.order != self.order:
            self.main, self.order = swapped(self.main), reader.layout.order
        page = reader.directory(last, Wanted()).entries
        entries = {tag: entry._replace(place=reader.places.get(tag)) for tag, entry in page.items()}
        entries |= self.main.entries
        if xmp is not None:
            entries[XMP] = Entry(BYTE, xmp)
        self._place_note(None)
        end = file.seek(0, os.SEEK_END)
        file.write(bytes(end % 2))
        end += end % 2
        file.write(pack_directory(Directory(entries, self.main.children), reader.layout, end))
        file.seek(pointer)
        file.write(struct.pack(reader.layout.offset, end))

    @property
    def _photograph(self) -> Directory:
        return self.main.children.get(EXIF, Directory())

    def _place_note(self, place: int | None) -> None:
        entries = self._photograph.entries
        if MAKER_NOTE in entries:
            entries[MAKER_NOTE] = entries[MAKER_NOTE]._replace(place=place)

    def _number(self, entry: Entry | None) -> int | None:
        """The first of whole numbers."""
        if entry is None or entry.kind not in (BYTE, SHORT, LONG):
            return None
        return Layout(self.order).number(entry.data[: BYTES[entry.kind]])

    def _fraction(self, entry: Entry | None) -> float:
        """The first of fractions; 0 for none."""
        if entry is None or entry.kind != RATIONAL or len(entry.data) < 8:
            return 0.0
        numerator, denominator = struct.unpack(self.order + "II", entry.data[:8])
        return numerator / denominator if denominator else 0.0
