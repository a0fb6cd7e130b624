"""Every bit of a sample is kept, or it is said; and formats whose decoders need a hand."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pillow_heif
import pillow_jxl  # noqa: F401  # registers itself
import pytest
import skimage.data
import tifffile

from patchattn.tasks.codecs import READ_SUFFIXES
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.warnings import FileWarning


def photograph(channels: int, bits: int, size: tuple[int, int] = (16, 20)) -> np.ndarray:
    """A crop of a photograph with `bits` bits a sample, all in use."""
    crop = skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]
    array = crop if channels >= 3 else crop[:, :, :1]
    if channels in (2, 4):
        array = np.concatenate([array, crop[::-1, :, 1:2]], 2)
    noise = np.random.default_rng(0).integers(0, 256, array.shape)
    array = (array.astype(np.uint32) * 256 + noise) >> (16 - bits)
    array[0, 0], array[0, 1] = 0, 2**bits - 1
    return array.astype(np.uint8 if bits <= 8 else np.uint16)


def assert_holds(image: Image, array: np.ndarray, largest: int, atol: float = 0) -> None:
    """The image has the samples of an array, scaled and rounded as its depth asks."""
    assert image.bit_depth == (8 if largest < 256 else 16)
    planes = image.color if image.alpha is None else np.concatenate([image.color, image.alpha], 1)
    full = 2**image.bit_depth - 1
    found = np.rint(np.asarray(planes)[0].transpose(1, 2, 0).astype(np.float64) * full)
    wanted = np.rint(np.atleast_3d(array).astype(np.float64) * full / largest)
    np.testing.assert_allclose(found, wanted, atol=atol)


# ------------------------------------------------------------------------------------------------------------- Netpbm


def netpbm(kind: str, array: np.ndarray, largest: int) -> bytes:
    height, width = array.shape[:2]
    head = f"{kind}\n# a comment\n{width} {height}\n" + ("" if kind in ("P1", "P4") else f"{largest}\n")
    if kind in ("P1", "P2", "P3"):
        return head.encode() + b"\n".join(b" ".join(b"%d" % n for n in row) for row in array.reshape(height, -1))
    if kind == "P4":
        return head.encode() + np.packbits(array[:, :, 0].astype(bool), axis=1).tobytes()
    if kind == "P7":
        name = {1: "GRAYSCALE", 2: "GRAYSCALE_ALPHA", 3: "RGB", 4: "RGB_ALPHA"}[array.shape[2]]
        head = (
            f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {array.shape[2]}\nMAXVAL {largest}\nTUPLTYPE {name}\nENDHDR\n"
        )
    return head.encode() + array.astype(np.uint8 if largest < 256 else ">u2").tobytes()


@pytest.mark.parametrize("largest", [1, 15, 100, 255, 256, 1000, 1023, 4095, 65535])
@pytest.mark.parametrize(("kind", "channels"), [("P2", 1), ("P3", 3), ("P5", 1), ("P6", 3), ("P7", 2), ("P7", 4)])
def test_netpbm(kind: str, channels: int, largest: int) -> None:
    array = (photograph(channels, 16).astype(np.int64) * largest // 65535).astype(np.uint16)
    assert_holds(read_image(netpbm(kind, array, largest)), array, largest)


@pytest.mark.parametrize("kind", ["P1", "P4"])
@pytest.mark.parametrize("width", [7, 8, 13])
def test_netpbm_bits(kind: str, width: int) -> None:
    array = (photograph(1, 8, (5, width)) > 99).astype(np.uint8)
    assert_holds(read_image(netpbm(kind, array, 1)), 1 - array, 1)


@pytest.mark.parametrize("extension", [".png", ".tif"])
def test_sixteen_bits_of_netpbm_arrive(tmp_path: Path, extension: str) -> None:
    array = photograph(3, 16)
    (tmp_path / "a.ppm").write_bytes(netpbm("P6", array, 65535))
    write_image(tmp_path / f"b{extension}", read_image(tmp_path / "a.ppm"))
    np.testing.assert_array_equal(imagecodecs.imread(tmp_path / f"b{extension}"), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"P6\n4 4\n255\nxx", r"it ends after 2 of 48 bytes of samples"),
        (b"P3\n2 1\n255\n1 2 3", r"it ends after 3 of 6 samples"),
        (b"P5\n2 1\n100\n\x65\x00", r"it has the sample 101, above its largest, 100"),
        (b"P5\n2\n", r"its header is cut or damaged"),
        (b"P5\n2 2\n70000\n", r"its header makes no sense"),
        (b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 7\nMAXVAL 255\nENDHDR\n1234567", r"it has 7 channels"),
        (b"P6\n999999999 999999999\n255\nxx", r"it ends after 2 of "),
    ],
)
def test_netpbm_damage(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=rf"cannot read standard input as an image \({message}"):
        read_image(data)


def test_second_netpbm_image_is_said() -> None:
    one = netpbm("P5", photograph(1, 8), 255)
    with pytest.warns(FileWarning, match="has more after its first image, left out"):
        assert_holds(read_image(one + one), photograph(1, 8), 255)


# --------------------------------------------------------------------------------- JPEG 2000, AVIF, HEIF, JPEG XL, TIFF


@pytest.mark.parametrize("bits", [4, 8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000(bits: int, channels: int, codec: str) -> None:
    array = photograph(channels, bits)
    squeezed = array[:, :, 0] if channels == 1 else array
    data = imagecodecs.jpeg2k_encode(squeezed, level=0, reversible=True, bitspersample=bits, codecformat=codec)
    assert_holds(read_image(data), array, 2**bits - 1)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_avif(bits: int, channels: int) -> None:
    array = photograph(channels, bits)
    squeezed = array[:, :, 0] if channels == 1 else array
    data = imagecodecs.avif_encode(squeezed, level=100, bitspersample=bits, speed=9)
    image = read_image(data)
    if channels == 1 and image.color.shape[1] == 3:
        array = array.repeat(3, 2)
    assert_holds(image, array, 2**bits - 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    array = photograph(3, 8)
    PIL.Image.fromarray(array).save(tmp_path / "a.avif", exif=exif, quality=100, subsampling="4:4:4")
    turned = {1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.transpose(1, 0, 2)}
    turned |= {6: np.rot90(array, -1), 7: np.rot90(array[::-1], 1), 8: np.rot90(array, 1)}
    wanted = turned[orientation]
    back = read_image(tmp_path / "a.avif").color[0].permute(1, 2, 0).numpy() * 255
    assert back.shape == wanted.shape
    assert np.abs(back - wanted).mean() < 3


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("channels", [3, 4])
def test_heif(tmp_path: Path, bits: int, channels: int) -> None:
    array = photograph(channels, bits)
    if bits == 8:
        PIL.Image.fromarray(array).save(
            tmp_path / "a.heic", format="HEIF", quality=-1, chroma=444, matrix_coefficients=0
        )
    else:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
        mode = "RGB;16" if channels == 3 else "RGBA;16"
        file = pillow_heif.from_bytes(mode, (20, 16), (array << (16 - bits)).tobytes())
        file.save(tmp_path / "a.heic", quality=-1, chroma=444, matrix_coefficients=0)
        pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    image = read_image(tmp_path / "a.heic")
    assert_holds(image, array, 2**bits - 1)
    assert dict(image.color_chunks.chunks) == {"cICP": bytes([1, 13, 0, 1])}


def test_further_images_in_heif_are_said(tmp_path: Path) -> None:
    file = pillow_heif.from_bytes("RGB", (20, 16), photograph(3, 8).tobytes())
    file.add_from_pillow(PIL.Image.fromarray(photograph(3, 8)[::-1].copy()))
    file.save(tmp_path / "a.heic", quality=-1)
    with pytest.warns(FileWarning, match=r"has 2 images; the main one is read and 1 left out"):
        read_image(tmp_path / "a.heic")


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_xl(bits: int, channels: int) -> None:
    array = photograph(channels, bits)
    image = read_image(imagecodecs.jpegxl_encode(array, lossless=True))
    assert_holds(image, array, 2**bits - 1)
    assert image.icc_profile is not None


def test_further_frames_of_jpeg_xl_are_said() -> None:
    array = photograph(3, 8)
    with pytest.warns(FileWarning, match=r"has more than one frame; the first is read"):
        assert_holds(read_image(imagecodecs.jpegxl_encode(np.stack([array, array[::-1]]), lossless=True)), array, 255)


@pytest.mark.parametrize(("suffix", "package", "name"), [("heic", "pillow_heif", "heif"), ("jxl", "pillow_jxl", "jxl")])
def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, suffix: str, package: str, name: str) -> None:
    memory = io.BytesIO()
    PIL.Image.fromarray(photograph(3, 8)).save(memory, {"heic": "HEIF", "jxl": "JXL"}[suffix])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RuntimeError, match=rf'{package}.*pip install "patchattn\[{name}\]"'):
        read_image(memory.getvalue())
    assert f".{suffix}" in READ_SUFFIXES


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_tiff_of_odd_depths(tmp_path: Path, bits: int) -> None:
    array = photograph(1, bits)[:, :, 0]
    options = {} if bits == 16 else {"bitspersample": bits, "compression": None}
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **options)
    assert_holds(read_image(tmp_path / "a.tif"), array, 2**bits - 1)


# ---------------------------------------------------------------------------------------------------------------- PNG


def png_with(array: np.ndarray, kind: bytes, body: bytes) -> bytes:
    data = imagecodecs.png_encode(array)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk + data[at:]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_png_with_a_transparent_color(channels: int, dtype: str) -> None:
    array = photograph(channels, 16 if dtype == "uint16" else 8)
    key = array[5, 7].astype(np.uint16)
    data = png_with(array[:, :, 0].copy() if channels == 1 else array, b"tRNS", key.astype(">u2").tobytes())
    image = read_image(data)
    assert_holds(Image(image.color, None, image.bit_depth), array, np.iinfo(array.dtype).max)
    assert image.alpha is not None
    np.testing.assert_array_equal(image.alpha[0, 0] == 0, (array == key).all(2))
    assert set(image.alpha.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("palette", [False, True])
def test_png_of_few_bits(tmp_path: Path, bits: int, palette: bool) -> None:
    array = photograph(1, bits)[:, :, 0]
    image = PIL.Image.fromarray(array, "L")
    if palette:
        image = PIL.Image.fromarray(array, "P")
        colors = np.random.default_rng(0).integers(0, 256, (2**bits, 3)).astype(np.uint8)
        image.putpalette(colors.tobytes())
        image.save(tmp_path / "a.png", bits=bits, transparency=bytes([0, 128]))
        expected = np.concatenate([colors, np.array([[0], [128], *[[255]] * (2**bits - 2)], np.uint8)], 1)[array]
    else:
        data = png_of_gray(array, bits)
        (tmp_path / "a.png").write_bytes(data)
        expected = (array * (255 // (2**bits - 1)))[:, :, None]
    assert_holds(read_image(tmp_path / "a.png"), expected, 255)


def png_of_gray(array: np.ndarray, bits: int) -> bytes:
    height, width = array.shape
    rows = np.unpackbits(array[:, :, None].astype(np.uint8), axis=2)[:, :, 8 - bits :].reshape(height, -1)
    raw = b"".join(b"\0" + np.packbits(row).tobytes() for row in rows)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(raw)),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# ---------------------------------------------------------------------------------------------------- what is not read


def floating(tmp_path: Path, name: str) -> bytes:
    array = photograph(3, 8).astype(np.float32) / 255
    if name == "jxl":
        return bytes(imagecodecs.jpegxl_encode(array, lossless=True))
    if name == "jpg12":
        return bytes(imagecodecs.jpeg8_encode(photograph(3, 12), bitspersample=12))
    dtype = {"f16": "f2", "f32": "f4", "f64": "f8", "u32": "u4", "i16": "i2"}[name]
    tifffile.imwrite(tmp_path / "a.tif", array.astype(dtype), photometric="rgb")
    return (tmp_path / "a.tif").read_bytes()


@pytest.mark.parametrize("name", ["f16", "f32", "f64", "u32", "i16", "jxl", "jpg12"])
def test_other_samples_are_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot read standard input as an image \(its .*(allowed|convert it first)"):
        read_image(floating(tmp_path, name))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"v/1\x01" + bytes(40), "OpenEXR: its samples are floating-point"),
        (b"#?RADIANCE\n" + bytes(40), "Radiance HDR: its samples are floating-point"),
        (b"PF\n2 2\n-1.0\n" + bytes(48), "PFM: its samples are floating-point"),
        (b"FUJIFILMCCD-RAW " + bytes(40), "a camera's raw file; develop it"),
        (b"\0\0\0\x18ftypcrx " + bytes(40), "a camera's raw file; develop it"),
        (b"\0\0\0\x18ftypisom" + bytes(40), "it is a video"),
        (b"%PDF-1.7" + bytes(40), "it is a document"),
    ],
)
def test_other_files_are_refused_in_a_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_image(data)


def test_raw_files_like_tiff(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.dng", photograph(3, 8), photometric="rgb", extratags=[(50706, 1, 4, b"\1\4\0\0", True)]
    )
    with pytest.raises(ValueError, match="a camera's raw file; develop it"):
        read_image(tmp_path / "a.dng")


def test_deep_sgi_is_said() -> None:
    memory = io.BytesIO()
    PIL.Image.fromarray(photograph(3, 8)).save(memory, "SGI", bpc=2)
    with pytest.warns(FileWarning, match="has 16 bits a channel, which are reduced to 8"):
        read_image(memory.getvalue())


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".tga", ".mpo", ".avif", ".jp2", ".ico", ".pbm", ".heif", ".jxl"])
def test_suffixes_do_not_matter_to_reading(tmp_path: Path, suffix: str) -> None:
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".mpo": "JPEG", ".pbm": "PPM", ".heif": "HEIF", ".jxl": "JXL"}
    image = PIL.Image.fromarray(photograph(3, 8, (16, 16)))
    image.save(tmp_path / f"a{suffix}", formats.get(suffix))
    assert suffix in READ_SUFFIXES
    assert read_image(tmp_path / f"a{suffix}").size == (16, 16)


def test_mpo_and_icons_say_what_is_left_out(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(photograph(3, 8, (64, 64)))
    image.save(tmp_path / "a.mpo", save_all=True, append_images=[image.rotate(90)])
    with pytest.warns(FileWarning, match=r"has 2 images; the first is read and 1 is left out"):
        read_image(tmp_path / "a.mpo")
    image.save(tmp_path / "a.ico", sizes=[(16, 16), (32, 32), (64, 64)])
    with pytest.warns(FileWarning, match=r"has icons of 3 sizes; the largest is read and 2 are left out"):
        assert read_image(tmp_path / "a.ico").size == (64, 64)
