"""Cut files and files that lie: always a sentence, never a crash, a hang or a full memory."""

from __future__ import annotations

import io
import struct
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif  # noqa: F401  # Pillow writes with it
import pytest
import skimage.data
import tifffile
import torch

from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.sequences import ImageSequence, read_frames, write_frames
from patchattn.tasks.warnings import FileWarning

pytestmark = pytest.mark.filterwarnings("ignore::patchattn.tasks.warnings.FileWarning")

MEMORY = 200 << 20
"""Bytes that reading a small file may take."""


def photograph(size: tuple[int, int] = (24, 30)) -> np.ndarray:
    return skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]


def written(format: str) -> bytes:
    memory = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    options = {"exif": exif} if format in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}
    PIL.Image.fromarray(photograph()).save(memory, format, **options)
    return memory.getvalue()


def several(format: str) -> bytes:
    memory = io.BytesIO()
    images = [Image(torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(n)).round()) for n in range(3)]
    kind = "pages" if format == "tif" else "animation"
    write_frames(memory, images, ImageSequence(kind, "other", (0.1,) * 3), format=format)  # type: ignore[arg-type]
    return memory.getvalue()


def deep(extension: str) -> bytes:
    memory = io.BytesIO()
    write_image(memory, Image(torch.rand(1, 3, 20, 24), bit_depth=16), format=extension)
    return memory.getvalue()


CORPUS: dict[str, Callable[[], bytes]] = {
    **{
        name: lambda name=name: written(name)
        for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "TGA", "ICO", "AVIF", "HEIF")
    },
    **{f"frames.{name}": lambda name=name: several(name) for name in ("gif", "webp", "apng", "tif")},
    **{f"deep.{name}": lambda name=name: deep(name) for name in ("png", "tif")},
    "ppm": lambda: b"P6\n24 20\n255\n" + bytes(range(256)) * 5 + bytes(160),
    "jp2": lambda: bytes(imagecodecs.jpeg2k_encode(photograph().astype(np.uint16) * 16, level=0, bitspersample=12)),
    "jxl": lambda: bytes(imagecodecs.jpegxl_encode(photograph())),
}


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("kept", [0.0, 0.2, 0.5, 0.8])
def test_cut_files_are_refused(name: str, kept: float) -> None:
    data = CORPUS[name]()
    cut = data[: int(len(data) * kept)]
    if name == "frames.tif" and kept >= 0.5:  # whole pages are left
        said = r"damaged after page \d; what may follow|the first is read and 2 are left"
        with pytest.warns(FileWarning, match=said):
            read_image(cut)
        with pytest.raises(ValueError, match="path: cannot read standard input as an image"):
            list(read_frames(cut))
        return
    with pytest.raises(ValueError, match=r"path: cannot read standard input as an image \(.+\); expected"):
        read_image(cut)


def test_a_cut_png_says_what_is_missing() -> None:
    data = written("PNG")
    with pytest.raises(ValueError, match=r"the file is cut: of its chunk IDAT \d+ bytes are missing"):
        read_image(data[: len(data) // 2])


# -------------------------------------------------------------------------------------------------------------- bombs


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(bytes(100)))
        + chunk(b"IEND", b"")
    )


def gif(width: int, height: int) -> bytes:
    frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0x80) + bytes(6) + b"\2\2\x44\1\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + frame + b";"


def tiff(width: int, height: int, bits: int, compression: int) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, 1), (278, 4, height), (279, 4, 20)]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + rows + bytes(4) + bytes(40)


GROWING = zlib.compress(bytes(60 << 20))

BOMBS = {
    "png": png(60_000, 60_000),
    "deep png": png(60_000, 60_000, depth=16),
    "gif": gif(65_000, 65_000),
    "tiff": tiff(100_000, 100_000, 8, 1),
    "deep tiff": tiff(100_000, 100_000, 16, 8),
    "narrow tiff": tiff(20, 16_777_232, 8, 8),
    "tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 65_000, 65_000, 24, 0) + bytes(50),
    "bmp": b"BM" + struct.pack("<IHHIIiiHH", 100, 0, 0, 54, 40, 65_000, 65_000, 1, 24) + bytes(70),
    "ppm": b"P6\n65000 65000\n255\n" + bytes(50),
    "webp": b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0" + b"\xff\xff\xff" * 2 + b"ANIM\6\0\0\0" + bytes(6)
    + b"ANMF\x10\0\0\0" + bytes(16),
    "jp2": b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8I", *(65_000, 65_000, 0, 0) * 2)
    + b"\0\1\7\1\1" + bytes(40),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_headers_that_lie_do_not_fill_the_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)  # as on the command line
    for read in (read_image, lambda source: list(read_frames(source))):
        began = time.process_time()
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"path: cannot read standard input as an image \("):
            read(BOMBS[name])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY
        assert time.process_time() - began < 5


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
@pytest.mark.parametrize("keyword", [b"Comment", b"XML:com.adobe.xmp", b"Raw profile type exif"])
def test_texts_that_grow_do_not_fill_the_memory(kind: bytes, keyword: bytes) -> None:
    body = keyword + (b"\0\1\0\0\0" if kind == b"iTXt" else b"\0\0") + GROWING
    data = png(6, 5, *[chunk(kind, body)] * 5)
    tracemalloc.start()
    assert read_image(data).size == (5, 6)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY


def test_blank_pages_are_no_bombs(tmp_path: Path) -> None:
    """White paper, scanned for a fax at 600 dpi, and a white square."""
    PIL.Image.new("1", (4960, 7016), 1).save(tmp_path / "a.tif", compression="group4")
    assert read_image(tmp_path / "a.tif").size == (7016, 4960)
    for name, options in (("a.png", {}), ("a.jpg", {"progressive": True})):
        PIL.Image.new("L", (4100, 4000), 255).save(tmp_path / name, **options)
        assert read_image(tmp_path / name).size == (4000, 4100)


def test_circles_of_pages_end(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", photograph(), photometric="rgb", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert len(list(read_frames(bytes(data)))) == 1


def test_what_decoders_warn_of_is_said() -> None:
    """Not in a traceback's form, and not as an error where warnings are errors."""
    data = bytearray(written("TIFF"))
    first = struct.unpack_from("<I", data, 4)[0]
    for row in range(struct.unpack_from("<H", data, first)[0]):
        at = first + 2 + 12 * row
        if struct.unpack_from("<H", data, at)[0] == 284:
            struct.pack_into("<HHII", data, at, 284, 3, 3, 8)  # three planar configurations
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_image(bytes(data), argument="PHOTO")
    assert all(issubclass(one.category, FileWarning) for one in caught)
    assert all(str(one.message).startswith("PHOTO: standard input") for one in caught)
    assert caught


def test_programs_are_not_run() -> None:
    """Encapsulated PostScript, which Pillow gives to Ghostscript."""
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"
    with pytest.raises(ValueError, match=r"path: cannot read standard input as an image \(its format is unknown\)"):
        read_image(program)
