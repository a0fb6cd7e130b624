"""Recognized formats that are not supported, and advice on converting them."""

from __future__ import annotations

from typing import BinaryIO

from patchattn.tasks.codecs.iso_boxes import brands

__all__ = ["RAW", "refuse_unsupported"]

FLOATING = (
    "its samples are floating-point numbers; integers of 8 and 16 bits are allowed: convert it to 16-bit TIFF first"
)
RAW = "it is a camera's raw file; develop it to TIFF or JPEG first"
VIDEO = "it is a video; `colorize` takes those"
DOCUMENT = "it is a document; export its pages as images first"

BEGINNINGS = {
    b"v/1\x01": f"OpenEXR: {FLOATING}",
    b"#?RADIANCE": f"Radiance HDR: {FLOATING}",
    b"#?RGBE": f"Radiance HDR: {FLOATING}",
    b"PF\n": f"PFM: {FLOATING}",
    b"Pf\n": f"PFM: {FLOATING}",
    b"FUJIFILMCCD-RAW": RAW,
    b"IIRO": RAW,
    b"IIRS": RAW,
    b"IIU\0": RAW,
    b"FOVb": RAW,
    b"II*\0\x10\0\0\0CR": RAW,
    b"\x1aE\xdf\xa3": VIDEO,
    b"%PDF": DOCUMENT,
    b"<svg": DOCUMENT,
}
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)}
"""JPEG start-of-frame markers, which are followed by the bit depth."""

BRANDS = {b"crx ": RAW, b"isom": VIDEO, b"mp42": VIDEO, b"mp41": VIDEO, b"qt  ": VIDEO}


def refuse_unsupported(file: BinaryIO) -> None:
    """Raise a ValueError with advice if a file is in a recognized but unsupported format."""
    file.seek(0)
    head = file.read(64)
    for beginning, reason in BEGINNINGS.items():
        if head.startswith(beginning):
            raise ValueError(reason)
    if head[4:8] == b"ftyp" and head[8:12] in BRANDS and not brands(head) & {b"mif1", b"avif"}:
        raise ValueError(BRANDS[head[8:12]])
    if head[:2] == b"\xff\xd8" and (bits := _jpeg_depth(file)) != 8:
        raise ValueError(f"its samples have {bits} bits; JPEG of 8 bits is allowed: convert it first")


def _jpeg_depth(file: BinaryIO) -> int:
    """Return the bit depth of a JPEG; 8 if it cannot be found."""
    at = 2
    while True:
        file.seek(at)
        part = file.read(5)
        if len(part) < 5 or part[0] != 0xFF:
            return 8
        if part[1] in FRAMES:
            return part[4]
        # Filling, or a marker without a length.
        alone = part[1] == 0xFF or part[1] == 1 or 0xD0 <= part[1] <= 0xD8
        at += 1 if part[1] == 0xFF else 2 if alone else 2 + int.from_bytes(part[2:4], "big")
