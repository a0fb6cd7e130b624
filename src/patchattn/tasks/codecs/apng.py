"""Animated PNG (APNG)."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import BinaryIO

from patchattn.tasks.codecs.animations import Animation, Frame, TimedFrame, changed_box, cut
from patchattn.tasks.codecs.chunks import PNG_SIGNATURE, PngChunk, png_chunk, png_chunks
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.size_limits import check_extent

__all__ = ["parse_apng", "write_apng"]

DISPOSALS = ("keep", "background", "previous")
FRAME = struct.Struct(">IIIIIHHBB")
"""The fcTL chunk: sequence number, size, offset, delay fraction, disposal, blending."""


def parse_apng(data: bytes) -> Animation | None:
    """Parse the frames of a PNG file; None if it is not animated.

    Raises:
        ValueError: the file is cut or damaged.
    """
    if b"acTL" not in data:
        return None
    header, tables, plays = b"", b"", None
    found: list[tuple[tuple[int, ...], list[bytes], list[bytes]]] = []
    still_apart = False
    for kind, body in png_chunks(data):
        if kind == b"IHDR":
            header = body
        elif kind in (b"PLTE", b"tRNS"):
            tables += png_chunk(kind, body)
        elif kind == b"acTL":
            plays = struct.unpack(">II", body)[1]
        elif kind == b"fcTL" and plays is not None:
            found.append((FRAME.unpack(body), [], []))
        elif kind == b"IDAT" and plays is not None and not found:
            still_apart = True
        elif kind == b"IDAT" and found:
            found[-1][1].append(body)
        elif kind == b"fdAT" and found:
            found[-1][2].append(body[4:])
    if plays is None or not found:
        return None
    frames = []
    for (_, width, height, left, top, number, unit, dispose, blend), first, more in found:
        still = PNG_SIGNATURE + png_chunk(b"IHDR", struct.pack(">II", width, height) + header[8:]) + tables
        still += png_chunk(b"IDAT", b"".join(first or more)) + png_chunk(b"IEND", b"")
        way = DISPOSALS[dispose] if dispose < 3 else "keep"
        frames.append(Frame(still, left, top, number / (unit or 100), way, blend == 1))  # type: ignore[arg-type]
    width, height = struct.unpack_from(">II", header)
    check_extent((height, width), len(data), "PNG")
    return Animation((height, width), frames, plays, gray=header[9] in (0, 4), still_apart=still_apart)


def write_apng(
    file: BinaryIO,
    frames: Iterable[TimedFrame],
    plays: int,
    like: Samples,
    encode: Callable[[BinaryIO, Samples], Notes],
) -> Notes:
    """Write an APNG file frame by frame, storing only the rectangle that changed.

    Args:
        file: open for writing and reading, and empty.
        frames: the first is also what viewers without animation show.
        plays: see `Animation`.
        like: what belongs to the first frame beside its samples.
        encode: writes a PNG file.

    Returns:
        What was lost.
    """
    count, sequence = 0, 0
    count_at = 0
    notes: Notes = ()
    before: Array | None = None
    for array, duration in frames:
        if before is None:
            memory = io.BytesIO()
            notes = encode(memory, replace(like, array=array))
            rows, columns = slice(0, array.shape[0]), slice(0, array.shape[1])
            chunks: Iterator[PngChunk] = png_chunks(memory.getvalue())
            file.write(PNG_SIGNATURE + png_chunk(*next(chunks)))
            count_at = file.tell()
            file.write(png_chunk(b"acTL", struct.pack(">II", 0, plays)))
        else:
            rows, columns = changed_box((array != before).any(2))
            memory = io.BytesIO()
            encode(memory, Samples(cut(array, rows, columns)))
            chunks = (chunk for chunk in png_chunks(memory.getvalue()) if chunk.kind == b"IDAT")
        time = _fraction(duration)
        place = (columns.stop - columns.start, rows.stop - rows.start, columns.start, rows.start)
        control = png_chunk(b"fcTL", FRAME.pack(sequence, *place, time.numerator, time.denominator, 0, 0))
        sequence += 1
        pending = True
        for kind, body in chunks:
            if pending and kind == b"IDAT":
                file.write(control)
                pending = False
            if before is None:
                file.write(png_chunk(kind, body))
            else:
                file.write(png_chunk(b"fdAT", struct.pack(">I", sequence) + body))
                sequence += 1
        before = array
        count += 1
    if before is None:
        raise ValueError("frames: there is none; expected at least one.")
    file.write(png_chunk(b"IEND", b""))
    file.seek(count_at)
    file.write(png_chunk(b"acTL", struct.pack(">II", count, plays)))
    file.seek(0, os.SEEK_END)
    return notes


def _fraction(seconds: float) -> Fraction:
    """Return a duration as a fraction of two 16-bit integers."""
    seconds = min(seconds, 65535.0)
    return Fraction(seconds).limit_denominator(65535 // (int(seconds) + 1) or 1)
