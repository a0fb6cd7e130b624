"""Color metadata other than ICC profiles: PNG chunks, and the code points of AVIF and HEIF."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from patchattn.tasks.codecs.chunks import PngChunk
from patchattn.tasks.codecs.icc import (
    SRGB_CURVE,
    SRGB_PRIMARIES,
    Curve,
    Primaries,
    gray_profile,
    rgb_profile,
)

__all__ = ["COLOR_CHUNKS", "NO_COLOR_CHUNKS", "ColorChunks", "from_code_points"]

COLOR_CHUNKS = (b"cICP", b"mDCV", b"mDCv", b"cLLI", b"cLLi", b"sRGB", b"gAMA", b"cHRM")
"""Chunks that define the color encoding, in the order in which they are written."""

D65, C, DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
PRIMARIES = {
    1: SRGB_PRIMARIES,
    4: Primaries((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), C),
    5: Primaries((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), D65),
    6: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    7: Primaries((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), D65),
    8: Primaries((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), C),
    9: Primaries((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    10: Primaries((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), DCI),
    12: Primaries((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    22: Primaries((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), D65),
}
"""Color primaries of ITU-T H.273, by code point."""

BT709 = Curve(1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
TRANSFERS = {
    **dict.fromkeys((1, 6, 14, 15), BT709),
    4: Curve(2.2),
    5: Curve(2.8),
    7: Curve(1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: Curve(1.0),
    13: SRGB_CURVE,
}
"""Transfer characteristics by code point. PQ (16) and HLG (18) encode light brighter than white, which a matrix profile
cannot."""


@dataclass(frozen=True)
class ColorChunks:
    """Color chunks of a PNG file (cICP, sRGB, gAMA, cHRM, ...); see the PNG specification, third edition.

    Example:
        >>> linear = ColorChunks((("gAMA", struct.pack(">I", 100_000)),))
        >>> linear.profile(1)[:4] == struct.pack(">I", len(linear.profile(1)))
        True
    """

    chunks: tuple[tuple[str, bytes], ...] = ()
    """Names and data of the chunks."""

    @classmethod
    def of(cls, chunks: Iterable[PngChunk]) -> ColorChunks:
        """Select the color chunks of a PNG file; the first of each name."""
        found: dict[str, bytes] = {}
        for kind, data in chunks:
            if kind in COLOR_CHUNKS:
                found.setdefault(kind.decode(), data)
        order = [kind.decode() for kind in COLOR_CHUNKS]
        return cls(tuple(sorted(found.items(), key=lambda chunk: order.index(chunk[0]))))

    def __bool__(self) -> bool:
        return bool(self.chunks)

    def profile(self, channels: int, icc_profile: bytes | None = None) -> bytes | None:
        """Return an equivalent ICC profile for gray (1 channel) or RGB (3); None if the chunks define no encoding.

        Args:
            channels: 1 or 3.
            icc_profile: the file's ICC profile; only cICP takes precedence over it.

        Raises:
            ValueError: no such profile can be made; the message says why.
        """
        found = dict(self.chunks)
        if "cICP" in found:
            return _of_code_points(found["cICP"], channels)
        if icc_profile is not None:
            return icc_profile
        if "sRGB" in found:
            return _made(SRGB_PRIMARIES, SRGB_CURVE, "sRGB", channels)
        if not {"gAMA", "cHRM"} & found.keys():
            return None
        curve, primaries = SRGB_CURVE, SRGB_PRIMARIES
        if "gAMA" in found:
            gamma = int.from_bytes(found["gAMA"], "big") / 100_000
            if len(found["gAMA"]) != 4 or not 0.02 < gamma < 50:
                raise ValueError(f"the gamma in its chunk gAMA is {gamma:g}")
            curve = Curve(1 / gamma)
        if "cHRM" in found:
            if len(found["cHRM"]) != 32:
                raise ValueError("its chunk cHRM is damaged")
            numbers = [number / 100_000 for number in struct.unpack(">8I", found["cHRM"])]
            white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
            primaries = Primaries(red, green, blue, white)
        return _made(primaries, curve, "PNG gamma and chromaticities", channels)


NO_COLOR_CHUNKS = ColorChunks()


def from_code_points(primaries: int, transfer: int) -> ColorChunks:
    """Make the cICP chunk of ITU-T H.273 code points, for full-range RGB; empty if they are unspecified."""
    if primaries in (0, 2) or transfer in (0, 2) or max(primaries, transfer) > 255:
        return NO_COLOR_CHUNKS
    return ColorChunks((("cICP", bytes([primaries, transfer, 0, 1])),))


def _of_code_points(data: bytes, channels: int) -> bytes:
    if len(data) != 4:
        raise ValueError("its chunk cICP is damaged")
    primaries, transfer, matrix, full = data
    named = {16: "PQ", 18: "HLG"}.get(transfer, f"transfer {transfer}")
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        raise ValueError(f"an ICC profile cannot say what its chunk cICP says (primaries {primaries}, {named})")
    if matrix != 0 or full != 1:
        raise ValueError("its chunk cICP says that it is no RGB of full range")
    return _made(PRIMARIES[primaries], TRANSFERS[transfer], f"H.273 {primaries}/{transfer}", channels)


def _made(primaries: Primaries, curve: Curve, name: str, channels: int) -> bytes:
    return gray_profile(curve, name) if channels == 1 else rgb_profile(primaries, curve, name)
