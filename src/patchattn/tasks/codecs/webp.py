"""WebP: images and animations, written without loss."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterable
from typing import BinaryIO

from patchattn.extras import extra
from patchattn.tasks.codecs.animations import Animation, Frame, TimedFrame, changed_box, cut
from patchattn.tasks.codecs.chunks import riff_chunk, riff_chunks
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.size_limits import check_extent
from patchattn.tasks.metadata import exif_of

__all__ = ["encode_webp", "is_webp", "parse_webp", "write_webp"]

ALPHA = 0x10
"""VP8X flag for alpha."""
ANIMATION = 0x02


def is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def parse_webp(data: bytes) -> Animation | None:
    """Parse the frames of a WebP file; None if it is not animated.

    Raises:
        ValueError: the file is cut.
    """
    if data[12:16] != b"VP8X" or not data[20] & ANIMATION:
        return None
    size, plays, background, frames = (0, 0), 0, None, []
    for kind, body in riff_chunks(data):
        if kind == b"VP8X":
            size = (_number24(body, 7) + 1, _number24(body, 4) + 1)
        elif kind == b"ANIM":
            blue, green, red, alpha, plays = struct.unpack_from("<BBBBH", body)
            background = (red, green, blue, alpha)
        elif kind == b"ANMF":
            left, top, width, height, duration = (_number24(body, at) for at in range(0, 15, 3))
            parts = dict(riff_chunks(body, 16))
            still = _still((width + 1, height + 1), parts)
            dispose = "background" if body[15] & 1 else "keep"
            frames.append(Frame(still, 2 * left, 2 * top, duration / 1000, dispose, not body[15] & 2))  # type: ignore[arg-type]
    if not frames:
        raise ValueError("it holds no image")
    check_extent(size, len(data), "canvas")
    return Animation(size, frames, plays, background)


def _number24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


def _pack24(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(3, "little") for number in numbers)


def _still(size: tuple[int, int], parts: dict[bytes, bytes]) -> bytes:
    if b"ALPH" in parts:
        head = riff_chunk(b"VP8X", bytes([ALPHA, 0, 0, 0]) + _pack24(size[0] - 1, size[1] - 1))
        kinds = (b"ALPH", b"VP8 ")
    else:
        head, kinds = b"", (b"VP8 ", b"VP8L")
    body = b"WEBP" + head + b"".join(riff_chunk(kind, parts[kind]) for kind in kinds if kind in parts)
    return riff_chunk(b"RIFF", body)


def encode_webp(file: BinaryIO, samples: Samples) -> Notes:
    """Write an RGB or RGBA image, lossless; colors under transparent pixels are kept."""
    with extra("tools"):
        from PIL import Image
    image = Image.fromarray(samples.array)
    # It has no other place for the resolution.
    exif = exif_of(samples.metadata, always=True)
    image.save(
        file,
        "WEBP",
        lossless=True,
        exact=True,
        icc_profile=samples.icc_profile,
        exif=exif or b"",
        xmp=samples.metadata.xmp or b"",
    )
    return ()


def write_webp(
    file: BinaryIO,
    frames: Iterable[TimedFrame],
    plays: int,
    like: Samples,
    background: tuple[int, int, int, int] | None = None,
) -> Notes:
    """Write an animated WebP frame by frame, storing only the rectangle that changed.

    Returns:
        What was lost.
    """
    lost: dict[str, None] = {}
    before: Array | None = None
    clock, alpha = 0.0, 0
    exif, xmp = exif_of(like.metadata, always=True), like.metadata.xmp
    flags = ANIMATION | 0x20 * bool(like.icc_profile) | 0x08 * bool(exif) | 0x04 * bool(xmp)
    for array, duration in frames:
        if before is None:
            rows, columns = slice(0, array.shape[0]), slice(0, array.shape[1])
            alpha = ALPHA * (array.shape[2] in (2, 4))
            extended = bytes([flags | alpha, 0, 0, 0]) + _pack24(array.shape[1] - 1, array.shape[0] - 1)
            file.write(b"RIFF\0\0\0\0WEBP" + riff_chunk(b"VP8X", extended))
            if like.icc_profile:
                file.write(riff_chunk(b"ICCP", like.icc_profile))
            red, green, blue, opacity = background or (0, 0, 0, 0)
            shown = struct.pack("<BBBBH", blue, green, red, opacity, min(plays, 65535))
            file.write(riff_chunk(b"ANIM", shown))
        else:
            rows, columns = changed_box((array != before).any(2))
            # Places are even numbers.
            rows, columns = slice(rows.start & ~1, rows.stop), slice(columns.start & ~1, columns.stop)
        milliseconds = min(round((clock + duration) * 1000) - round(clock * 1000), (1 << 24) - 1)
        if abs(milliseconds / 1000 - duration) > 0.00005:
            lost["times are rounded to thousandths of a second, which are WebP's unit"] = None
        clock += duration
        memory = io.BytesIO()
        encode_webp(memory, Samples(cut(array, rows, columns)))
        height, width = array[rows, columns].shape[:2]
        place = _pack24(columns.start // 2, rows.start // 2, width - 1, height - 1, milliseconds)
        parts = ((kind, body) for kind, body in riff_chunks(memory.getvalue()) if kind in (b"ALPH", b"VP8 ", b"VP8L"))
        # 2: it takes the place of what was there.
        file.write(riff_chunk(b"ANMF", place + b"\x02" + b"".join(riff_chunk(*part) for part in parts)))
        before = array
    if before is None:
        raise ValueError("frames: there is none; expected at least one.")
    if exif:
        file.write(riff_chunk(b"EXIF", exif))
    if xmp:
        file.write(riff_chunk(b"XMP ", xmp))
    size = file.seek(0, os.SEEK_END)
    file.seek(4)
    file.write(struct.pack("<I", size - 8))
    file.seek(0, os.SEEK_END)
    return tuple(lost)
