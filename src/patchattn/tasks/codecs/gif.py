"""GIF: frames of up to 256 colors each, opaque or wholly transparent."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.codecs.animations import Animation, Frame, TimedFrame, changed_box
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.size_limits import check_extent

__all__ = ["GIF_SIGNATURES", "encode_gif", "parse_gif", "write_gif"]

GIF_SIGNATURES = (b"GIF87a", b"GIF89a")
DISPOSALS = {2: "background", 3: "previous"}
BLOCK = re.compile(rb"[\x21\x2c\x3b]")
TRANSPARENT = 255
"""Palette index of transparent pixels."""


def parse_gif(data: bytes) -> Animation:
    """Parse the frames of a GIF file.

    Raises:
        ValueError: the file ends within a frame, or holds none.
    """
    height, width = struct.unpack_from("<HH", data, 6)[::-1]
    global_table, at = _color_table(data, data[10], 13)
    frames: list[Frame] = []
    plays, control, gray = 1, (0, 0, 0), True
    # What is neither extension nor image between the blocks is passed over, as by everybody.
    while at < len(data) and data[at] != 0x3B:
        if data[at] == 0x21:
            blocks, end = _sub_blocks(data, at + 2)
            if data[at + 1] == 0xF9 and len(blocks) >= 4:
                control = struct.unpack_from("<BHB", blocks)
            elif data[at + 1] == 0xFF and blocks[:11] in (b"NETSCAPE2.0", b"ANIMEXTS1.0") and len(blocks) >= 14:
                repeats = struct.unpack_from("<H", blocks, 12)[0]
                plays = repeats + 1 if repeats else 0
            at = end
        elif data[at] == 0x2C:
            flags, delay, transparent = control
            left, top, across, down, packed = struct.unpack_from("<HHHHB", data, at + 1)
            table, start = _color_table(data, packed, at + 10)
            _, end = _sub_blocks(data, start + 1)
            if end > len(data):
                raise ValueError(f"the file ends within frame {len(frames) + 1}")
            gray = gray and _is_gray(table or global_table)
            still = _still((across, down), packed & 0x40, table or global_table, data[start:end], flags, transparent)
            dispose = DISPOSALS.get(flags >> 2 & 7, "keep")
            frames.append(Frame(still, left, top, delay / 100, dispose))  # type: ignore[arg-type]
            if len(frames) == 1:  # some programs leave the canvas at nothing
                height, width = max(height, top + down), max(width, left + across)
            at, control = end, (0, 0, 0)
        else:
            found = BLOCK.search(data, at)
            at = len(data) if found is None else found.start()
    if not frames:
        raise ValueError("it holds no image")
    check_extent((height, width), len(data), "canvas")
    return Animation((height, width), frames, plays, gray=gray)


def _color_table(data: bytes, packed: int, at: int) -> tuple[bytes, int]:
    """Read the color table announced by the flags `packed`; also returns the offset after it."""
    size = 3 << (packed & 7) + 1 if packed & 0x80 else 0
    return data[at : at + size], at + size


def _is_gray(table: bytes) -> bool:
    return table[0::3] == table[1::3] == table[2::3]


def _sub_blocks(data: bytes, at: int) -> tuple[bytes, int]:
    """Join data sub-blocks; also returns the offset after them, which lies beyond the end of a truncated file."""
    parts = []
    while at < len(data) and data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts), at + 1


def _still(size: tuple[int, int], interlaced: int, table: bytes, pixels: bytes, flags: int, transparent: int) -> bytes:
    bits = max((len(table) // 3 - 1).bit_length() - 1, 0)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", *size, (0x80 if table else 0) | bits, 0, 0)
        + table
        + struct.pack("<HBBHBB", 0xF921, 4, flags & 1, 0, transparent, 0)
        + struct.pack("<BHHHHB", 0x2C, 0, 0, *size, interlaced)
        + pixels
        + b";"
    )


def encode_gif(file: BinaryIO, samples: Samples) -> Notes:
    """Write a single image."""
    return write_gif(file, [TimedFrame(samples.array, 0.0)], 1)


def write_gif(file: BinaryIO, frames: Iterable[TimedFrame], plays: int) -> Notes:
    """Write a GIF file frame by frame, storing only the pixels that changed.

    Returns:
        What was lost.
    """
    lost: dict[str, None] = {}
    before: Array | None = None
    shown: Array | None = None
    waiting: tuple[Array, int] | None = None
    clock = 0.0
    for array, duration in frames:
        frame = _opaque_or_not(array, lost)
        # Rounding the times and not the durations keeps the whole in step.
        delay = min(round((clock + duration) * 100) - round(clock * 100), 65535)
        if abs(delay / 100 - duration) > 0.0005:
            lost["times are rounded to hundredths of a second, which are GIF's unit"] = None
        clock += duration
        if waiting is None:
            _write_header(file, frame.shape[:2], plays)
            before = np.zeros_like(frame)
        else:
            # What vanishes can only be cleared by the frame before.
            vanishes = bool(((shown[:, :, 3] > 0) & (frame[:, :, 3] == 0)).any())  # type: ignore[index]
            _write_frame(file, before, *waiting, vanishes, lost)  # type: ignore[arg-type]
            before = np.zeros_like(frame) if vanishes else shown
        waiting, shown = (frame, delay), frame
    if waiting is None:
        raise ValueError("frames: there is none; expected at least one.")
    _write_frame(file, before, *waiting, False, lost)  # type: ignore[arg-type]
    file.write(b";")
    return tuple(lost)


def _opaque_or_not(array: Array, lost: dict[str, None]) -> NDArray[np.uint8]:
    """Threshold the alpha of RGBA to 0 or 255."""
    color = np.repeat(array[:, :, :1], 3, axis=2) if array.shape[2] <= 2 else array[:, :, :3]
    alpha = array[:, :, -1:] if array.shape[2] in (2, 4) else np.full_like(array[:, :, :1], 255)
    if ((alpha > 0) & (alpha < 255)).any():
        lost["what is partly transparent becomes opaque, or transparent below half, for GIF has nothing between"] = None
    opaque = alpha >= 128
    return np.concatenate([np.where(opaque, color, 0), np.where(opaque, 255, 0)], axis=2).astype(np.uint8)


def _write_header(file: BinaryIO, size: tuple[int, ...], plays: int) -> None:
    file.write(b"GIF89a" + struct.pack("<HHBBB", size[1], size[0], 0x70, 0, 0))
    if plays != 1:
        file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", max(plays - 1, 0), 0))


def _write_frame(
    file: BinaryIO, before: Array, frame: NDArray[np.uint8], delay: int, clear: bool, lost: dict[str, None]
) -> None:
    drawn = (frame != before).any(2) & (frame[:, :, 3] > 0)
    whole = (slice(0, frame.shape[0]), slice(0, frame.shape[1]))
    rows, columns = whole if clear else changed_box(drawn)
    drawn = drawn[rows, columns]
    table, indices = _quantized(np.ascontiguousarray(frame[rows, columns, :3]), drawn, lost)
    indices[~drawn] = TRANSPARENT
    flags = (2 if clear else 1) << 2 | (not drawn.all())
    file.write(struct.pack("<HBBHBB", 0xF921, 4, flags, delay, TRANSPARENT, 0))
    file.write(struct.pack("<BHHHHB", 0x2C, columns.start, rows.start, *indices.shape[::-1], 0x87))
    file.write(table.ljust(768, b"\0") + _compressed(indices))


def _quantized(
    color: NDArray[np.uint8], drawn: NDArray[np.bool_], lost: dict[str, None]
) -> tuple[bytes, NDArray[np.uint8]]:
    """Return a color table of up to 255 entries (256 if everything is drawn), and the index of every pixel."""
    with extra("tools"):
        from PIL import Image
    room = 256 if drawn.all() else TRANSPARENT
    packed = color.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    distinct, inverse = np.unique(packed[drawn], return_inverse=True)
    if len(distinct) <= room:
        indices = np.zeros(drawn.shape, np.uint8)
        indices[drawn] = inverse
        table = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], 1).astype(np.uint8)
        return table.tobytes(), indices
    lost["colors are reduced to 256 a frame, which is all that GIF holds"] = None
    image = Image.fromarray(color)
    # Twice: the first finds the palette, the second dithers with it.
    palette = image.quantize(room, kmeans=2)
    dithered = image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    return bytes(palette.getpalette("RGB") or b"")[: 3 * room], np.array(dithered)


def _compressed(indices: NDArray[np.uint8]) -> bytes:
    """Compress 8-bit palette indices (LZW)."""
    with extra("tools"):
        from PIL import Image
    memory = io.BytesIO()
    Image.fromarray(indices).save(memory, "GIF", optimize=False, interlace=False)
    still = parse_gif(memory.getvalue()).frames[0].still
    return still[13 + 768 + 8 + 10 : -1]
