"""Animations and pages: every frame comes whole, and goes back with its time."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile
import torch
from PIL import ImageSequence as PillowSequence

from patchattn.tasks.images import Image, read_image
from patchattn.tasks.metadata import Metadata
from patchattn.tasks.sequences import (
    ImageSequence,
    can_hold_frames,
    check_frames_output,
    count_frames,
    read_frames,
    write_frames,
)
from patchattn.tasks.warnings import FileWarning

DURATIONS = (0.0, 0.05, 0.12, 0.3, 0.04)


def photograph(channels: int = 3, size: tuple[int, int] = (24, 30)) -> np.ndarray:
    crop = skimage.data.astronaut()[60 : 60 + size[0], 180 : 180 + size[1]]
    array = crop if channels >= 3 else crop[:, :, :1]
    return np.concatenate([array, crop[::-1, :, 1:2]], 2) if channels in (2, 4) else array


def moving(count: int = 5, channels: int = 3) -> list[np.ndarray]:
    """A square of another color that moves over a photograph of few colors."""
    still = photograph(channels) // 64 * 64
    frames = []
    for number in range(count):
        frame = still.copy()
        frame[4:10, 4 * number : 4 * number + 6] = (250, 20 * number, 5, 255)[:channels]
        frames.append(frame)
    return frames


def images(arrays: list[np.ndarray]) -> list[Image]:
    return [as_image(array) for array in arrays]


def as_image(array: np.ndarray) -> Image:
    planes = torch.from_numpy(array.astype(np.float32) / np.iinfo(array.dtype).max).permute(2, 0, 1)[None]
    colors = 1 if array.shape[2] <= 2 else 3
    alpha = planes[:, colors:] if array.shape[2] > colors else None
    return Image(planes[:, :colors], alpha, 16 if array.dtype == np.uint16 else 8)


def as_array(image: Image) -> np.ndarray:
    planes = image.color if image.alpha is None else torch.cat([image.color, image.alpha], 1)
    largest = 2**image.bit_depth - 1
    return (planes[0].permute(1, 2, 0) * largest).round().numpy().astype(int)


def shown(array: np.ndarray) -> np.ndarray:
    """What is seen: RGBA, without the colors of what is transparent."""
    if array.shape[2] <= 2:
        array = np.concatenate([np.repeat(array[:, :, :1], 3, 2), array[:, :, 1:]], 2)
    if array.shape[2] == 3:
        array = np.concatenate([array, np.full_like(array[:, :, :1], 255)], 2)
    return np.where(array[:, :, 3:] == 0, 0, array)


def by_pillow(path: Path) -> Iterator[np.ndarray]:
    with PIL.Image.open(path) as image:
        for frame in PillowSequence.Iterator(image):
            yield np.asarray(frame.convert("RGBA")).astype(int)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.apng"])
@pytest.mark.parametrize("plays", [0, 1, 3])
def test_animation_round_trip(tmp_path: Path, name: str, plays: int) -> None:
    arrays = moving()
    like = ImageSequence("animation", "png", DURATIONS, plays)
    write_frames(tmp_path / name, images(arrays), like)
    assert count_frames(tmp_path / name) == 5
    back = read_frames(tmp_path / name)
    assert (back.durations, back.plays, back.kind, back.alpha) == (DURATIONS, plays, "animation", False)
    for _ in range(2):  # any number of times
        for image, array in zip(back, arrays, strict=True):
            np.testing.assert_array_equal(as_array(image), array)
    # Others see the same.
    for seen, array in zip(by_pillow(tmp_path / name), arrays, strict=True):
        np.testing.assert_array_equal(seen, shown(array))
    with PIL.Image.open(tmp_path / name) as opened:
        assert opened.info.get("loop") == ({0: 0, 1: None, 3: 2} if name == "a.gif" else {0: 0, 1: 1, 3: 3})[plays]


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_what_moves_leaves_transparency_behind(tmp_path: Path, name: str) -> None:
    arrays = [np.zeros((20, 30, 4), np.uint8) for _ in range(4)]
    for number, array in enumerate(arrays):
        array[3:9, 5 * number : 5 * number + 8] = (200, 30 * number, 10, 255)
    arrays[2][15:, :10] = (0, 0, 255, 255)
    write_frames(tmp_path / name, images(arrays), ImageSequence("animation", "gif", (0.1,) * 4, 0, alpha=True))
    back = read_frames(tmp_path / name)
    assert back.alpha
    for image, array in zip(back, arrays, strict=True):
        np.testing.assert_array_equal(shown(as_array(image)), array)
    for seen, array in zip(by_pillow(tmp_path / name), arrays, strict=True):
        np.testing.assert_array_equal(shown(seen), array)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_animated_png_keeps_depth_and_channels(tmp_path: Path, channels: int, dtype: str) -> None:
    arrays = [photograph(channels).astype(dtype) * (1 if dtype == "uint8" else 257) for _ in range(3)]
    for number, array in enumerate(arrays):
        array[number : number + 2, 3:5] = 300 * number if dtype == "uint16" else number
    like = ImageSequence("animation", "png", (1 / 30, 1 / 24, 100.5), alpha=channels in (2, 4))
    write_frames(tmp_path / "a.png", images(arrays), like)
    back = read_frames(tmp_path / "a.png")
    assert back.durations == pytest.approx((1 / 30, 1 / 24, 100.5), abs=1e-12)
    for image, array in zip(back, arrays, strict=True):
        np.testing.assert_array_equal(as_array(image), array)


def gif(*frames: bytes, size: tuple[int, int] = (8, 8), table: bytes = b"", loop: int | None = None) -> bytes:
    bits = (len(table) // 3 - 1).bit_length() - 1
    head = b"GIF89a" + struct.pack("<HHBBB", *size[::-1], 0x80 | bits if table else 0, 0, 0) + table
    repeat = b"" if loop is None else b"!\xff\x0bNETSCAPE2.0\x03\x01" + struct.pack("<HB", loop, 0)
    return head + repeat + b"".join(frames) + b";"


def gif_frame(
    indices: np.ndarray,
    place: tuple[int, int] = (0, 0),
    dispose: int = 0,
    transparent: int | None = None,
    table: bytes = b"",
    delay: int = 10,
) -> bytes:
    memory = io.BytesIO()
    PIL.Image.fromarray(indices.astype(np.uint8)).save(memory, "GIF", optimize=False, interlace=False)
    data = memory.getvalue()
    data = data[data.index(b",", 13 + 768) + 10 : -1]
    bits = (len(table) // 3 - 1).bit_length() - 1
    control = struct.pack("<HBBHBB", 0xF921, 4, dispose << 2 | (transparent is not None), delay, transparent or 0, 0)
    row, column = place
    packed = 0x80 | bits if table else 0
    return control + struct.pack("<BHHHHB", 0x2C, column, row, *indices.shape[::-1], packed) + table + data


RED_GREEN_BLUE_WHITE = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255])
OTHER = bytes([9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 99, 98])
RED, GREEN, BLUE, OTHERS = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (6, 5, 4, 255)


def test_gif_compositing() -> None:
    """An offset frame with its own palette, and each way to dispose of one."""
    full, small = np.zeros((8, 8)), np.ones((3, 2))
    data = gif(
        gif_frame(full),
        gif_frame(small, (2, 3), dispose=3, table=OTHER),
        gif_frame(2 * small, (0, 0), dispose=2),
        gif_frame(small, (5, 5), dispose=1, transparent=1),
        gif_frame(small, (7, 7)),
        table=RED_GREEN_BLUE_WHITE,
        loop=0,
    )
    expected = [np.full((8, 8, 4), RED) for _ in range(5)]
    expected[1][2:5, 3:5] = OTHERS
    expected[2][0:3, 0:2] = BLUE
    for number in (3, 4):
        expected[number][0:3, 0:2] = 0
    expected[4][7:, 7:] = GREEN
    sequence = read_frames(data)
    assert sequence.alpha
    assert sequence.plays == 0
    for image, wanted in zip(sequence, expected, strict=True):
        np.testing.assert_array_equal(as_array(image), wanted)


@pytest.mark.parametrize("kind", ["one frame", "small first", "canvas of nothing", "no table", "gray"])
def test_gif_variants(kind: str) -> None:
    full, small = np.ones((8, 8)), np.ones((3, 2))
    if kind == "one frame":
        data, expected = gif(gif_frame(full), table=RED_GREEN_BLUE_WHITE), np.full((8, 8, 3), GREEN[:3])
    elif kind == "small first":
        data, expected = gif(gif_frame(small, (1, 1)), table=RED_GREEN_BLUE_WHITE), np.zeros((8, 8, 4), int)
        expected[1:4, 1:3] = GREEN
    elif kind == "canvas of nothing":
        data = gif(gif_frame(full), size=(0, 0), table=RED_GREEN_BLUE_WHITE)
        expected = np.full((8, 8, 3), GREEN[:3])
    elif kind == "no table":
        data, expected = gif(gif_frame(full)), np.full((8, 8, 1), 1)
    else:
        table = bytes(np.repeat(np.array([3, 77, 200, 255], np.uint8), 3))
        data, expected = gif(gif_frame(full), gif_frame(small), table=table), np.full((8, 8, 1), 77)
    assert count_frames(data) == (2 if kind == "gray" else 1)
    np.testing.assert_array_equal(as_array(next(iter(read_frames(data)))), expected)
    np.testing.assert_array_equal(as_array(read_image(data, frame=0)), expected)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_animated_png_compositing() -> None:
    """Disposal, blending with half transparency, and an image that is none of the frames."""
    frames = [np.full((6, 6, 4), (200, 100, 0, 255)), np.full((2, 3, 4), (0, 100, 200, 128)), np.zeros((2, 2, 4))]
    places = [(0, 0), (1, 2), (4, 4)]
    ways = [(0, 0), (2, 1), (1, 0)]  # disposal, blending
    sequence = 0

    def idat(array: np.ndarray) -> bytes:
        data = imagecodecs.png_encode(array.astype(np.uint8))
        at = data.index(b"IDAT")
        return data[at + 4 : at + 4 + struct.unpack(">I", data[at - 4 : at])[0]]

    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 6, 8, 6, 0, 0, 0))
    data += png_chunk(b"acTL", struct.pack(">II", 3, 7)) + png_chunk(b"IDAT", idat(np.full((6, 6, 4), 50)))
    for array, (row, column), way in zip(frames, places, ways, strict=True):
        place = (*array.shape[1::-1], column, row)
        data += png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", sequence, *place, 1, 0, *way))
        data += png_chunk(b"fdAT", struct.pack(">I", sequence + 1) + idat(array))
        sequence += 2
    data += png_chunk(b"IEND", b"")
    expected = [frames[0].copy() for _ in range(3)]
    expected[1][1:3, 2:5] = (100, 100, 100, 255)
    expected[2][4:, 4:] = 0
    with pytest.warns(FileWarning, match=r"standard input has an image that is none of its frames, left out"):
        opened = read_frames(data)
    assert opened.plays == 7
    assert opened.durations == (0.01,) * 3
    for image, wanted in zip(opened, expected, strict=True):
        np.testing.assert_allclose(as_array(image), wanted, atol=1)
    with pytest.warns(FileWarning, match=r"has 3 frames besides its image, which are left out"):
        still = read_image(data)
    assert (as_array(still) == 50).all()


def test_webp_by_others(tmp_path: Path) -> None:
    arrays = moving(4, 4)
    images = [PIL.Image.fromarray(array) for array in arrays]
    options = {"save_all": True, "append_images": images[1:], "lossless": True, "exact": True}
    images[0].save(tmp_path / "a.webp", duration=[10, 20, 30, 400], loop=2, background=(1, 2, 3, 4), **options)
    sequence = read_frames(tmp_path / "a.webp")
    assert (sequence.durations, sequence.plays) == ((0.01, 0.02, 0.03, 0.4), 2)
    assert sequence.background == (1, 2, 3, 4)
    for image, seen in zip(sequence, by_pillow(tmp_path / "a.webp"), strict=True):
        np.testing.assert_array_equal(shown(as_array(image)), shown(seen))


@pytest.mark.parametrize(("source", "target"), [("a.gif", "b.webp"), ("a.webp", "b.apng"), ("a.png", "b.gif")])
def test_metadata_and_format_change(tmp_path: Path, source: str, target: str) -> None:
    arrays = moving()
    told = images(arrays)
    if ".gif" not in source + target:
        told = [replace(one, metadata=Metadata(resolution=(300, 300))) for one in told]
    write_frames(tmp_path / source, told, ImageSequence("animation", "png", DURATIONS, 2))
    sequence = read_frames(tmp_path / source)
    write_frames(tmp_path / target, sequence, sequence)
    back = read_frames(tmp_path / target)
    assert (back.durations, back.plays) == (DURATIONS, 2)
    for image, array in zip(back, arrays, strict=True):
        np.testing.assert_array_equal(as_array(image), array)
    if ".gif" not in source + target:
        assert next(iter(back)).metadata.resolution == (300, 300)


def test_gif_says_what_it_loses(tmp_path: Path) -> None:
    many = [photograph(4, (60, 80)), photograph(4, (60, 80))[::-1].copy()]
    like = ImageSequence("animation", "png", (1 / 30, 1 / 30), alpha=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        write_frames(tmp_path / "a.gif", images(many), like, argument="--output")
    said = sorted(str(one.message) for one in caught)
    assert len(said) == 3
    assert all(one.startswith(f"--output: {tmp_path / 'a.gif'}: ") for one in said)
    assert "256 a frame" in said[0]
    assert "hundredths of a second" in said[1]
    assert "partly transparent" in said[2]
    back = [as_array(image) for image in read_frames(tmp_path / "a.gif")]
    for array, wanted in zip(back, many, strict=True):
        opaque = wanted[:, :, 3] >= 128
        np.testing.assert_array_equal(array[:, :, 3] == 255, opaque)
        assert np.abs(array[:, :, :3] - wanted[:, :, :3])[opaque].mean() < 6


# ------------------------------------------------------------------------------------------------------------- pages


def mixed() -> list[Image]:
    deep = photograph(1, (12, 9)).astype(np.uint16) * 257 + 3
    arrays = [photograph(3), deep, photograph(4, (7, 40)), np.where(photograph(1) > 99, 255, 0).astype(np.uint8)]
    exif = PIL.Image.Exif()
    told = []
    for number, image in enumerate(images(arrays)):
        exif[0x10F] = f"page {number} of the camera"
        exif[0x8298] = f"© {number}"
        metadata = Metadata(exif.tobytes()[6:], resolution=(100 + number, 200))
        told.append(replace(image, metadata=metadata))
    return told


def test_pages_keep_size_depth_and_metadata(tmp_path: Path) -> None:
    pages = mixed()
    write_frames(tmp_path / "a.tif", pages, ImageSequence("pages", "tiff", (0.0,) * 4))
    sequence = read_frames(tmp_path / "a.tif")
    assert len(sequence) == count_frames(tmp_path / "a.tif") == 4
    write_frames(tmp_path / "b.tiff", sequence, sequence)
    for back in (sequence, read_frames(tmp_path / "b.tiff")):
        for image, page in zip(back, pages, strict=True):
            assert image.bit_depth == page.bit_depth
            np.testing.assert_array_equal(as_array(image), as_array(page))
            assert image.metadata.resolution == page.metadata.resolution
            assert image.metadata.exif is not None
            assert page.metadata.exif is not None
            assert page.metadata.exif[30:50] in image.metadata.exif
    with PIL.Image.open(tmp_path / "b.tiff") as opened:
        assert opened.n_frames == 4
        opened.seek(2)
        assert opened.size == (40, 7)
        assert opened.getexif()[0x10F] == "page 2 of the camera"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_pages_of_others(tmp_path: Path, order: str, big: bool) -> None:
    arrays = [photograph(3), photograph(1, (5, 6))[:, :, 0].astype(np.uint16) * 200]
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order, bigtiff=big) as tiff:
        tiff.write(arrays[0], photometric="rgb", compression="lzw")
        tiff.write(photograph(3, (6, 8)), photometric="rgb", subfiletype=1)
        tiff.write(arrays[1], photometric="minisblack", extratags=[(271, 2, 0, "Koeln")])
        tiff.write(photograph(1)[:, :, 0] > 99, photometric="mask", subfiletype=4)
    with pytest.warns(FileWarning) as said:
        sequence = read_frames(tmp_path / "a.tif", argument="PHOTO")
    assert [str(one.message).split("a.tif ")[1] for one in said] == [
        "has 1 reduced copy of its image, left out.",
        "has 1 transparency mask, left out.",
    ]
    for image, array in zip(sequence, arrays, strict=True):
        np.testing.assert_array_equal(as_array(image), np.atleast_3d(array))
    assert read_image(tmp_path / "a.tif", frame=1).bit_depth == 16


def test_bytes_order_of_pages_from_elsewhere(tmp_path: Path) -> None:
    """The second page's EXIF is in the other byte order than the file."""
    exif = PIL.Image.Exif()
    exif[0x9003] = "2020:01:01 00:00:00"
    exif[0x829D] = 2.8
    first = exif.tobytes()[6:]
    exif.endian = "<" if first[:2] == b"MM" else ">"
    second = exif.tobytes()[6:]
    assert first[:2] != second[:2]
    pages = [replace(as_image(photograph()), metadata=Metadata(block)) for block in (first, second)]
    write_frames(tmp_path / "a.tif", pages, ImageSequence("pages", "tiff", (0.0, 0.0)))
    one, two = read_frames(tmp_path / "a.tif")
    assert one.metadata == two.metadata


# ------------------------------------------------------------------------------------------------ streams, and errors


@pytest.mark.parametrize(("format", "kind"), [("gif", "animation"), (".webp", "animation"), ("tiff", "pages")])
def test_streams(format: str, kind: str) -> None:
    arrays = moving(3)
    memory = io.BytesIO()
    write_frames(memory, images(arrays), ImageSequence(kind, "other", (0.1,) * 3), format=format)  # type: ignore[arg-type]
    memory.seek(0)
    for image, array in zip(read_frames(memory), arrays, strict=True):
        np.testing.assert_array_equal(as_array(image), array)


def test_one_frame_of_several(tmp_path: Path) -> None:
    write_frames(tmp_path / "a.gif", images(moving()), ImageSequence("animation", "gif", DURATIONS))
    with pytest.warns(FileWarning, match=r"--target: .*a\.gif has 5 frames; the first is read and 4 are left out\."):
        np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.gif", argument="--target")), moving()[0])
    np.testing.assert_array_equal(as_array(read_image(tmp_path / "a.gif", frame=3)), moving()[3])
    with pytest.raises(ValueError, match=r"there is no frame 5; it has 5, counted from 0"):
        read_image(tmp_path / "a.gif", frame=5)


def test_a_still_image_is_a_sequence_of_one(tmp_path: Path) -> None:
    PIL.Image.fromarray(photograph()).save(tmp_path / "a.bmp")
    sequence = read_frames(tmp_path / "a.bmp")
    assert len(sequence) == count_frames(tmp_path / "a.bmp") == 1
    np.testing.assert_array_equal(as_array(next(iter(sequence))), photograph())


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_cut_files(tmp_path: Path, name: str, kept: float) -> None:
    kind = "pages" if name == "a.tif" else "animation"
    write_frames(tmp_path / name, images(moving()), ImageSequence(kind, "gif", DURATIONS))  # type: ignore[arg-type]
    data = (tmp_path / name).read_bytes()
    with pytest.raises(ValueError, match=r"PHOTO: cannot read standard input as an image \(.+\); expected"):
        for _ in read_frames(data[: int(len(data) * kept)], argument="PHOTO"):
            pass


def test_refusals(tmp_path: Path) -> None:
    like = ImageSequence("animation", "gif", (0.1, 0.1))
    two = images(moving(2))
    with pytest.raises(
        ValueError, match=r"--output: .*a\.jpg ends in \.jpg; allowed are \.gif, \.webp, \.png and \.apng"
    ):
        check_frames_output(tmp_path / "a.jpg", like, argument="--output")
    with pytest.raises(
        ValueError, match=r"standard output has no extension to tell the format by; give a format: gif, "
    ):
        check_frames_output(io.BytesIO(), like)
    with pytest.raises(ValueError, match=r"frames: there are 1; expected 2"):
        write_frames(tmp_path / "a.gif", two[:1], like)
    with pytest.raises(ValueError, match=r"frames: there are more than 2"):
        write_frames(tmp_path / "a.gif", two + two, like)
    with pytest.raises(ValueError, match=r"frames: there are? (is none|0)"):
        write_frames(tmp_path / "a.gif", [], like)
    with pytest.raises(ValueError, match=r"frames: one has \(12, 30\) pixels of 8 bits, the first \(24, 30\)"):
        write_frames(tmp_path / "a.png", [two[0], replace(two[1], color=two[1].color[:, :, :12])], like)
    with pytest.raises(ValueError, match=r"frames: some are gray"):
        write_frames(tmp_path / "a.png", [two[0], replace(two[1], color=two[1].color[:, :1])], like)
    half = replace(two[1], alpha=torch.full_like(two[1].color[:, :1], 0.5))
    with pytest.raises(ValueError, match=r"frames: one is transparent somewhere"):
        write_frames(tmp_path / "a.png", [two[0], half], like)
    assert list(tmp_path.iterdir()) == []
    assert not can_hold_frames("a.tif", like)
