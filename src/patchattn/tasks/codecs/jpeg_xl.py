"""JPEG XL at its own depth."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from patchattn.extras import extra
from patchattn.tasks.codecs.iso_boxes import find_boxes
from patchattn.tasks.codecs.pillow import decode_with_pillow
from patchattn.tasks.codecs.samples import Notes, Samples
from patchattn.tasks.metadata import find_metadata

__all__ = ["decode_jpeg_xl", "is_jpeg_xl"]


SIGNATURE = b"\xff\x0a"


def is_jpeg_xl(head: bytes) -> bool:
    return head[:2] == SIGNATURE or head[4:12] == b"JXL \r\n\x87\n"


def decode_jpeg_xl(file: BinaryIO) -> Samples:
    """Read JPEG XL of 8 or 16 bits."""
    with extra("jxl"):
        import pillow_jxl  # noqa: F401  # what Pillow reads it with
    with extra("tools"):
        from imagecodecs import jpegxl_decode
    data = file.read()
    try:
        samples = decode_with_pillow(file)
    except RuntimeError as error:  # whose words speak of the decoder
        raise ValueError("it is cut or damaged") from error
    array = np.atleast_3d(jpegxl_decode(data, index=0))
    if array.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"its samples are {array.dtype}; integers of 8 and 16 bits are allowed: convert it first")
    # The decoder that Pillow calls knows no XMP. It is turned already, whatever EXIF says.
    found = find_metadata(samples.metadata.exif, next(find_boxes(data, (b"xml ",)), None), samples.metadata.resolution)
    return Samples(
        np.ascontiguousarray(array),
        samples.icc_profile,
        found.metadata,
        damaged=(*samples.damaged, *found.damaged),
        notes=(*samples.notes, *_further_frames(data)),
    )


def _further_frames(data: bytes) -> Notes:
    if not _is_animated(data):
        return ()
    return ("has more than one frame; the first is read and the others are left out",)


def _is_animated(data: bytes) -> bool:
    """Return whether the header announces an animation; the decoders find out only by decoding it."""
    stream = data
    if data[:2] != SIGNATURE:
        whole, part = next(find_boxes(data, (b"jxlc",)), b""), next(find_boxes(data, (b"jxlp",)), b"")
        stream = whole or part[4:]
    bits = _Bits(stream[len(SIGNATURE) : len(SIGNATURE) + 32])
    bits.skip_size()
    all_default = bits.take(1)
    if all_default or not bits.take(1):
        return False
    bits.take(3)  # orientation
    if bits.take(1):
        bits.skip_size()
    preview = bits.take(1)
    return not preview and bool(bits.take(1))


class _Bits:
    """Bit reader of a codestream, lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self._left = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        taken = self._left & ((1 << count) - 1)
        self._left >>= count
        return taken

    def skip_size(self) -> None:
        """Pass over the height, the ratio of the sides, and the width if there is no ratio."""
        in_eights = self.take(1)
        self._skip_length(in_eights)
        if not self.take(3):
            self._skip_length(in_eights)

    def _skip_length(self, in_eights: int) -> None:
        self.take(5 if in_eights else (9, 13, 18, 30)[self.take(2)])
