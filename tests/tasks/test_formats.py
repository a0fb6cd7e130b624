"""The tables of docs/formats.md: every pair of formats does what they say."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif  # noqa: F401  # Pillow writes with it
import pillow_jxl  # noqa: F401  # likewise
import pytest
import skimage.data
import tifffile
import torch

from patchattn.tasks.codecs import FORMATS
from patchattn.tasks.codecs.icc import SRGB_PRIMARIES, Curve, rgb_profile
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.metadata import Metadata
from patchattn.tasks.sequences import SEQUENCE_FORMATS, ImageSequence, read_frames, write_frames
from patchattn.tasks.warnings import FileWarning

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
PROFILE = rgb_profile(SRGB_PRIMARIES, Curve(1.8), "gamma 1.8")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="A"/></x:xmpmeta>'
CODE_POINTS = bytes([12, 13, 0, 1])


def table(heading: str) -> dict[str, dict[str, str]]:
    """The rows of the table below a heading, by their first cells."""
    lines = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


READ, WRITTEN = table("Read"), table("Written")


def photograph(alpha: bool = False) -> np.ndarray:
    crop = skimage.data.astronaut()[60:76, 180:200] // 51 * 51
    return np.concatenate([crop, crop[:, :, :1]], 2) if alpha else crop


def exif() -> bytes:
    tags = PIL.Image.Exif()
    tags[0x010F], tags[0x011A], tags[0x011B], tags[0x0128] = "maker", 300.0, 300.0, 2
    return tags.tobytes()


def by_pillow(name: str, **options: Any) -> bytes:
    memory = io.BytesIO()
    alpha = name != "JPEG"
    told: dict[str, Any] = {"exif": exif(), "icc_profile": PROFILE, "xmp": XMP, "dpi": (300, 300)}
    told |= {"TIFF": {"exif": None, "tiffinfo": {271: "maker", 700: XMP}}}.get(name, {})
    kept = {key: value for key, value in (told | options).items() if value is not None}
    PIL.Image.fromarray(photograph(alpha)).save(memory, name, **kept)
    return memory.getvalue()


def png() -> bytes:
    data = imagecodecs.png_encode(photograph(alpha=True))
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + XMP
    chunks = [
        (b"cICP", CODE_POINTS),
        (b"iCCP", b"a\0\0" + zlib.compress(PROFILE)),
        (b"eXIf", exif()[6:]),
        (b"iTXt", text),
    ]
    chunks.append((b"pHYs", struct.pack(">IIB", 11811, 11811, 1)))
    added = b"".join(struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks)
    return data[:33] + added + data[33:]


def jpeg_2000() -> bytes:
    data = bytes(imagecodecs.jpeg2k_encode(photograph(alpha=True), level=0, reversible=True))
    # Its box of color in the place of the one that names sRGB.
    at = data.index(b"colr") - 4
    size = struct.unpack_from(">I", data, at)[0]
    box = b"colr\2\0\0" + PROFILE
    head = data.index(b"jp2h") - 4
    longer = struct.unpack_from(">I", data, head)[0] + len(box) + 4 - size
    changed = data[:at] + struct.pack(">I", len(box) + 4) + box + data[at + size :]
    return changed[:head] + struct.pack(">I", longer) + changed[head + 4 :]


def bmp() -> bytes:
    pixels = photograph(alpha=True)[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, 20, 16, 1, 32, 3, len(pixels), 11811, 11811, 0, 0)
    header += struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"DEBM") + bytes(48)
    header += struct.pack("<IIII", 4, 124 + len(pixels), len(PROFILE), 0)
    return b"BM" + struct.pack("<IHHI", 14 + len(header + pixels + PROFILE), 0, 0, 138) + header + pixels + PROFILE


def gif() -> bytes:
    memory = io.BytesIO()
    image = PIL.Image.fromarray(photograph()).quantize(32)
    image.save(memory, "GIF", transparency=3)
    return memory.getvalue()


def netpbm() -> bytes:
    head = b"P7\nWIDTH 20\nHEIGHT 16\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    return head + photograph(alpha=True).tobytes()


FILES: dict[str, Callable[[], bytes]] = {
    "PNG": png,
    "TIFF": lambda: by_pillow("TIFF"),
    "JPEG": lambda: by_pillow("JPEG"),
    "WebP": lambda: by_pillow("WEBP", lossless=True, exact=True),
    "AVIF": lambda: by_pillow("AVIF"),
    "HEIF": lambda: by_pillow("HEIF"),
    "JPEG XL": lambda: by_pillow("JXL", lossless=True),
    "JPEG 2000": jpeg_2000,
    "Netpbm": netpbm,
    "BMP": bmp,
    "GIF": gif,
}
"""A file of each format that holds all that the format can, where one file can."""


def held(image: Image) -> dict[str, bool]:
    told = image.metadata
    return {
        "alpha": image.alpha is not None,
        "color profile": image.icc_profile is not None,
        "color code points": bool(image.color_chunks),
        "EXIF": told.exif is not None and b"maker" in told.exif,
        "XMP": told.xmp is not None and b"dc:title" in told.xmp,
        "resolution": told.resolution is not None and round(told.resolution[0]) == 300,
    }


@pytest.mark.parametrize("name", READ)
def test_read(name: str) -> None:
    image = read_image(FILES[name]())
    expected = {what: READ[name][what] == "yes" for what in held(image)}
    if name in ("AVIF", "HEIF"):  # a profile goes before code points, and is here
        expected["color code points"] = False
    assert held(image) == expected


@pytest.mark.parametrize("name", ["AVIF", "HEIF"])
def test_read_code_points(name: str) -> None:
    image = read_image(by_pillow(name.upper(), icc_profile=None))
    assert READ[name]["color code points"] == "yes"
    assert held(image)["color code points"]


@pytest.mark.parametrize("source", READ)
@pytest.mark.parametrize("target", WRITTEN)
def test_every_pair(source: str, target: str, tmp_path: Path) -> None:
    """What a file of one format becomes in a file of another."""
    rules = WRITTEN[target]
    image = read_image(FILES[source]())
    for extension in target.split(", "):
        path = tmp_path / f"a{extension}"
        if image.alpha is not None and rules["alpha"] == "refused":
            with pytest.raises(ValueError, match="cannot hold the image's 8 bits a channel and alpha"):
                write_image(path, image)
        opaque = Image(image.color, None, 8, image.icc_profile, image.metadata, image.color_chunks)
        written = opaque if rules["alpha"] == "refused" else image
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            write_image(path, written)
            back = read_image(path)
        said = " ".join(str(one.message) for one in caught)
        assert all(issubclass(one.category, FileWarning) for one in caught)
        before, after = held(written), held(back)
        for what, kept in before.items():
            rule = rules[what]
            if not kept:
                continue
            assert after[what] == (rule == "kept"), (source, extension, what, rule)
            if rule == "warned":
                assert f"no room for the {what}" in said or f"and {what}" in said
        if before["color profile"] or before["color code points"]:
            if rules["color profile"] == "kept":
                assert after["color profile"] or after["color code points"]
            elif source != "JPEG XL":  # whose encoder here writes sRGB, which needs no conversion
                assert "the colors are converted to sRGB" in said
        if extension not in (".jpg", ".jpeg", ".bmp", ".gif"):
            torch.testing.assert_close(back.color, written.color, rtol=0, atol=1e-6)


@pytest.mark.parametrize("target", WRITTEN)
@pytest.mark.parametrize("channels", [1, 3])
def test_depth_and_gray(target: str, channels: int, tmp_path: Path) -> None:
    rules = WRITTEN[target]
    image = Image(torch.rand(1, channels, 6, 8), bit_depth=16)
    for extension in target.split(", "):
        if rules["16 bits"] == "refused":
            with pytest.raises(ValueError, match="cannot hold the image's 16 bits"):
                write_image(tmp_path / f"a{extension}", image)
        else:
            write_image(tmp_path / f"a{extension}", image)
            torch.testing.assert_close(read_image(tmp_path / f"a{extension}").color, image.color, rtol=0, atol=1e-5)
        few = Image((torch.rand(1, channels, 6, 8) * 15).round() / 15)
        write_image(tmp_path / f"b{extension}", few)
        back = read_image(tmp_path / f"b{extension}")
        if channels == 1 and rules["gray"] == "converted" and extension != ".gif":  # whose gray palettes are gray
            assert back.color.shape[1] == 3
        else:
            assert back.color.shape[1] == channels


@pytest.mark.parametrize("target", WRITTEN)
def test_several_images(target: str, tmp_path: Path) -> None:
    rule = WRITTEN[target]["several images"]
    two = [Image(torch.full((1, 3, 4, 5), value)) for value in (0.0, 1.0)]
    for extension in target.split(", "):
        kind = {"frames": "animation", "pages": "pages"}.get(rule)
        assert SEQUENCE_FORMATS.get(extension) == kind
        if kind is not None:
            path = tmp_path / f"a{extension}"
            write_frames(path, two, ImageSequence(kind, "png", (0.1, 0.1)))  # type: ignore[arg-type]
            assert len(read_frames(path)) == 2
            name = {".png": "PNG", ".apng": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WebP", ".gif": "GIF"}[
                extension
            ]
            assert READ[name]["several images"] == rule


def test_the_tables_are_whole() -> None:
    assert {extension for row in WRITTEN for extension in row.split(", ")} == set(FORMATS)
    assert FILES.keys() == READ.keys()


def test_a_profile_in_another_file_is_said() -> None:
    data = bmp().replace(b"DEBM", b"KNIL")
    with pytest.warns(FileWarning, match="names a color profile in another file, which is not read"):
        assert read_image(data).icc_profile is None


def test_metadata_of_a_page(tmp_path: Path) -> None:
    """What is left out is said once for all frames."""
    told = Metadata(exif()[6:], XMP, (300, 300))
    two = [Image(torch.full((1, 3, 4, 5), value), metadata=told) for value in (0.0, 1.0)]
    with pytest.warns(FileWarning) as said:
        write_frames(tmp_path / "a.gif", two, ImageSequence("animation", "png", (0.1, 0.1)))
    assert [str(one.message).split("a.gif: ")[1] for one in said] == [
        "its format has no room for the EXIF and XMP and resolution, left out."
    ]
    tifffile.imwrite(tmp_path / "a.tif", photograph(), photometric="rgb")
    assert read_image(tmp_path / "a.tif").metadata.exif is None
