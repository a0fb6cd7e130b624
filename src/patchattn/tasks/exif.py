"""EXIF metadata, read from and written to EXIF blocks and TIFF files.

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

from patchattn.tasks.tiff_ifd import (
    BYTE,
    BYTES,
    LONG,
    RATIONAL,
    SHORT,
    ByteLayout,
    ByteOrder,
    Directory,
    Entry,
    Reader,
    TagSelection,
    pack_directory,
    swapped,
)

__all__ = ["Exif", "SeparateFields"]

EXIF, GPS, INTEROPERABILITY = 0x8769, 0x8825, 0xA005
DESCRIPTION, ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 0x10E, 0x112, 0x11A, 0x11B, 0x128
SOFTWARE, XMP, MAKER_NOTE, WIDTH, HEIGHT = 0x131, 0x2BC, 0x927C, 0xA002, 0xA003
# Make, model, date, artist, host computer; two ratings; copyright; and title, comment, author, keywords and subject as
# Windows writes them.
OTHERS = {0x10F, 0x110, 0x132, 0x13B, 0x13C, 0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0)}
ELSEWHERE = (ORIENTATION, X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT, XMP)
# It says which RGB is meant. Programs that rewrite a file often leave a wrong offset of it, which is no damage.
RGB_KIND = TagSelection({1, 2}, if_sound=True)
IMAGE_TAGS = TagSelection(
    {DESCRIPTION, SOFTWARE, *ELSEWHERE} | OTHERS,
    {EXIF: TagSelection(None, {INTEROPERABILITY: RGB_KIND}), GPS: TagSelection()},
)
"""Tags that describe the image. All other tags of the first directory describe the file's pixel layout, and the
second directory of a block holds a thumbnail."""

ABOUT_LAYOUT = {DESCRIPTION: rb'\{"shape"|shape=|ImageJ=|<\?xml|<OME', SOFTWARE: rb"tifffile\.py\0"}
"""Prefixes of texts in which programs store the pixel layout of a TIFF file."""

TO_INCHES = {None: 1.0, 2: 1.0, 3: 2.54}
"""Factor to pixels per inch by resolution unit: inches (also if there is none) or centimeters."""

MAX_NOTE_SHIFT = 1 << 14
"""Largest offset at which the MakerNote keeps its position."""


class SeparateFields(NamedTuple):
    """Fields stored apart from the EXIF block: orientation (applied to the pixels), resolution and XMP."""

    orientation: int | None
    """EXIF orientation."""
    resolution: tuple[float, float] | None
    """Pixels per inch, horizontally and vertically; 0: not given."""
    xmp: bytes | None
    """XMP packet of a TIFF file, which is one of its tags."""


@dataclass
class Exif:
    """EXIF metadata of an image."""

    order: ByteOrder = "<"
    """Byte order of the values, as a `struct` prefix."""
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
        main = reader.directory(offset, IMAGE_TAGS)
        for tag, beginning in ABOUT_LAYOUT.items():
            if tag in main.entries and re.match(beginning, main.entries[tag].data):
                del main.entries[tag]
        exif = cls(reader.layout.order, main, reader.sound)
        # It may hold offsets from the start of the block, so that it had better not move.
        place = reader.places.get(MAKER_NOTE)
        exif._place_note(place if place is not None and 8 <= place < MAX_NOTE_SHIFT else None)
        return exif

    def take_out(self) -> SeparateFields:
        """Remove and return the fields that are stored elsewhere once the image is read."""
        orientation, across, down, unit, xmp = (self.main.entries.pop(tag, None) for tag in ELSEWHERE)
        inches = TO_INCHES.get(self._number(unit))
        resolution = None if inches is None else (self._fraction(across) * inches, self._fraction(down) * inches)
        return SeparateFields(self._number(orientation), resolution, None if xmp is None else xmp.data)

    def set_resolution(self, resolution: tuple[float, float]) -> None:
        """Set the resolution in pixels per inch."""
        for tag, number in zip((X_RESOLUTION, Y_RESOLUTION), resolution, strict=True):
            ratio = Fraction(number).limit_denominator(1000)
            data = struct.pack(self.order + "II", ratio.numerator, ratio.denominator)
            self.main.entries[tag] = Entry(RATIONAL, data)
        self.main.entries[RESOLUTION_UNIT] = Entry(SHORT, struct.pack(self.order + "H", 2))

    def correct_size(self, size: tuple[int, int]) -> None:
        """Set the image size, if the EXIF holds one, to (height, width)."""
        entries = self._image_directory.entries
        for tag, number in zip((HEIGHT, WIDTH), size, strict=True):
            if tag in entries:
                entries[tag] = Entry(LONG, struct.pack(self.order + "I", number))

    def block(self) -> bytes | None:
        """Serialize to an EXIF block; None if it is empty."""
        if not self.main:
            return None
        note = self._image_directory.entries.get(MAKER_NOTE)
        before = b""
        if note is not None and note.place is not None:
            before = bytes(note.place - 8) + note.data + bytes((note.place + len(note.data)) % 2)
        layout = ByteLayout(self.order)
        start = 8 + len(before)
        header = (b"II*\0" if self.order == "<" else b"MM\0*") + struct.pack(layout.offset, start)
        return header + before + pack_directory(self.main, layout, start)

    def append_to(self, file: BinaryIO, xmp: bytes | None) -> None:
        """Write this metadata and XMP into the last page of a TIFF file.

        Its directory is written anew at its end; what the old one led to stays where it is.
        """
        reader = Reader(file)
        *_, (pointer, last) = reader.pages()
        if reader.layout.order != self.order:
            self.main, self.order = swapped(self.main), reader.layout.order
        page = reader.directory(last, TagSelection()).entries
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
    def _image_directory(self) -> Directory:
        return self.main.children.get(EXIF, Directory())

    def _place_note(self, place: int | None) -> None:
        entries = self._image_directory.entries
        if MAKER_NOTE in entries:
            entries[MAKER_NOTE] = entries[MAKER_NOTE]._replace(place=place)

    def _number(self, entry: Entry | None) -> int | None:
        """First value of an integer field."""
        if entry is None or entry.kind not in (BYTE, SHORT, LONG):
            return None
        return ByteLayout(self.order).number(entry.data[: BYTES[entry.kind]])

    def _fraction(self, entry: Entry | None) -> float:
        """First value of a rational field; 0 if there is none."""
        if entry is None or entry.kind != RATIONAL or len(entry.data) < 8:
            return 0.0
        numerator, denominator = struct.unpack(self.order + "II", entry.data[:8])
        return numerator / denominator if denominator else 0.0
