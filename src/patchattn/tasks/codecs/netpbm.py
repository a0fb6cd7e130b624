"""Netpbm: PBM, PGM, PPM and PAM, with any maximum value."""

from __future__ import annotations

import re
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.tasks.codecs.samples import Samples, scaled

__all__ = ["decode_netpbm", "is_netpbm"]

TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*([^\s#]+)")
ALPHA = {"BLACKANDWHITE_ALPHA": 2, "GRAYSCALE_ALPHA": 2, "RGB_ALPHA": 4}
PLAIN = {"BLACKANDWHITE": 1, "GRAYSCALE": 1, "RGB": 3, **ALPHA}
"""The channels of PAM by its type of tuples."""


class Header(NamedTuple):
    width: int
    height: int
    channels: int
    largest: int
    """Maximum sample value, up to 65535."""
    start: int
    """Offset of the samples."""


def is_netpbm(head: bytes) -> bool:
    return len(head) > 2 and head[:1] == b"P" and head[1:2] in b"1234567" and head[2:3].isspace()


def decode_netpbm(file: BinaryIO) -> Samples:
    """Read the first image of a file; other maximum values than 255 and 65535 are rescaled."""
    data = file.read()
    kind = data[1:2]
    header = _pam_header(data) if kind == b"7" else _header(data)
    count = header.width * header.height * header.channels
    if not 0 < header.largest < 65536 or count <= 0:
        raise ValueError("its header makes no sense")
    numbers: NDArray[Any]
    if kind in b"123":
        numbers, end = _written(data, header, count, bits=kind == b"1")
    elif kind == b"4":
        row = -(-header.width // 8)
        end = header.start + row * header.height
        packed = np.frombuffer(_cut(data, header.start, end), np.uint8).reshape(header.height, row)
        numbers = np.unpackbits(packed, axis=1)[:, : header.width]
    else:
        stored = np.dtype(np.uint8 if header.largest < 256 else ">u2")
        end = header.start + count * stored.itemsize
        numbers = np.frombuffer(_cut(data, header.start, end), stored)
    numbers = numbers.reshape(header.height, header.width, header.channels)
    if numbers.max() > header.largest:
        raise ValueError(f"it has the sample {numbers.max()}, above its largest, {header.largest}")
    if kind in b"14":  # 1 is black
        numbers = 1 - numbers
    notes = ("has more after its first image, left out",) if data[end:].strip(b"\0\r\n\t ") else ()
    return Samples(scaled(numbers, header.largest), notes=notes)


def _header(data: bytes) -> Header:
    wanted = 2 if data[1:2] in b"14" else 3
    numbers, at = [], 2
    for _ in range(wanted):
        found = TOKEN.match(data, at)
        if found is None or not found[1].isdigit() or len(found[1]) > 9:
            raise ValueError("its header is cut or damaged")
        numbers.append(int(found[1]))
        at = found.end()
    largest = 1 if wanted == 2 else numbers[2]
    return Header(numbers[0], numbers[1], 3 if data[1:2] in b"36" else 1, largest, at + 1)


def _pam_header(data: bytes) -> Header:
    end = data.find(b"ENDHDR\n")
    if end < 0:
        raise ValueError("its header is cut or damaged")
    lines = (line.split(None, 1) for line in data[3:end].decode("ascii", "replace").splitlines())
    fields = {line[0]: line[1].strip() for line in lines if len(line) == 2 and line[0] != "#"}
    channels = int(fields["DEPTH"])
    if PLAIN.get(fields.get("TUPLTYPE", ""), channels) != channels or not 1 <= channels <= 4:
        raise ValueError(
            f"it has {channels} channels of {fields.get('TUPLTYPE')}; gray and RGB are allowed, with alpha"
        )
    return Header(int(fields["WIDTH"]), int(fields["HEIGHT"]), channels, int(fields["MAXVAL"]), end + len(b"ENDHDR\n"))


def _written(data: bytes, header: Header, count: int, *, bits: bool) -> tuple[NDArray[np.int64], int]:
    """Read samples that are written out in decimals, or as 0 and 1."""
    text = re.sub(rb"#[^\n\r]*", b"", data[header.start - 1 :])
    if bits:
        digits = np.frombuffer(text, np.uint8)
        numbers = digits[(digits == ord("0")) | (digits == ord("1"))].astype(np.int64) - ord("0")
    else:
        digits_alone = re.match(rb"[\d\s]*", text)
        numbers = np.fromstring(digits_alone[0] if digits_alone else b"", np.int64, sep=" ")
    if len(numbers) < count:
        raise ValueError(f"it ends after {len(numbers)} of {count} samples")
    return numbers[:count], len(data)


def _cut(data: bytes, start: int, end: int) -> bytes:
    if end > len(data):
        raise ValueError(f"it ends after {max(len(data) - start, 0)} of {end - start} bytes of samples")
    return data[start:end]
