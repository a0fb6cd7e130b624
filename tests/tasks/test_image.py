"""Images from and to NumPy arrays and Pillow images: exact, with profile, metadata and bit depth."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch

from patchattn.tasks.codecs import ColorChunks
from patchattn.tasks.color_profiles import srgb_profile
from patchattn.tasks.image import Image
from patchattn.tasks.images import read_image, write_image
from patchattn.tasks.metadata import Metadata
from patchattn.tasks.warnings import FileWarning

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def array(dtype: Any, channels: int) -> np.ndarray:
    """Every value of uint8, and as many of uint16."""
    largest = np.iinfo(dtype).max
    values = np.linspace(0, largest, 16 * 16).round().astype(dtype)
    return np.stack([np.roll(values, 7 * n) for n in range(channels)], 1).reshape(16, 16, channels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_come_back(dtype: Any, channels: int) -> None:
    given = array(dtype, channels)
    image = Image.from_numpy(given)
    assert image.bit_depth == 8 * np.dtype(dtype).itemsize
    assert image.color.shape[1] == (1 if channels < 3 else 3)
    assert (image.alpha is not None) == (channels in (2, 4))
    found = image.to_numpy()
    assert found.dtype == dtype
    assert found.shape == ((16, 16) if channels == 1 else (16, 16, channels))
    np.testing.assert_array_equal(found.reshape(given.shape), given)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_come_back(dtype: Any, channels: int) -> None:
    given = np.random.default_rng(0).random((5, 7, channels)).astype(dtype)
    image = Image.from_numpy(given, bit_depth=16, icc_profile=srgb_profile())
    assert (image.bit_depth, image.icc_profile) == (16, srgb_profile())
    found = image.to_numpy(dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.reshape(given.shape), given)


def test_the_layout_of_an_array_does_not_count() -> None:
    """Other byte order, other strides, two dimensions; and the array is copied."""
    given = array(np.uint16, 3)
    views = {"big": given.astype(">u2"), "turned": given.transpose(1, 0, 2), "mirrored": given[:, ::-1]}
    for view in views.values():
        np.testing.assert_array_equal(Image.from_numpy(view).to_numpy(), view)
    gray = given[:, :, 0]
    np.testing.assert_array_equal(Image.from_numpy(gray).to_numpy(), gray)
    floats = (given / 65535).astype(np.float32)
    image = Image.from_numpy(floats)
    floats[:] = 0
    assert image.color.max() == 1


def test_values_are_clipped_scaled_and_rounded() -> None:
    image = Image(torch.tensor([-0.5, 0.25, 0.5, 2.0]).view(1, 1, 1, 4))
    assert image.to_numpy().tolist() == [[0, 64, 128, 255]]
    assert image.to_numpy(np.uint16).tolist() == [[0, 16384, 32768, 65535]]
    assert image.to_numpy("float32").tolist() == [[-0.5, 0.25, 0.5, 2.0]]
    assert Image(image.color.bfloat16()).to_numpy(np.float32).tolist() == [[-0.5, 0.25, 0.5, 2.0]]
    assert replace(image, bit_depth=16).to_numpy().dtype == np.uint16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 5, 5), np.uint8), r"array: got shape \(4, 5, 5\) of uint8; expected \(height, width\)"),
        (np.zeros((4,), np.uint8), r"array: got shape \(4,\)"),
        ([[0, 255]], r"array: got shape \(1, 2\) of int64"),
        (np.zeros((4, 5), np.int64), r"array: got shape \(4, 5\) of int64; .*uint8, uint16 or floats"),
        (np.full((4, 5), 255.0), r"array: it holds NaN or floats outside \[0, 1\]"),
        (np.full((4, 5), np.nan), r"array: it holds NaN"),
        (np.zeros((0, 5), np.uint8), "which has no pixels"),
    ],
)
def test_other_arrays_are_errors(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Image.from_numpy(given)


def test_what_cannot_become_an_array_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"dtype: got int32; allowed are uint8, uint16, float16, float32 and float64"):
        Image(torch.zeros(1, 1, 2, 2)).to_numpy(np.int32)
    with pytest.raises(ValueError, match="image: it holds NaN"):
        Image(torch.full((1, 1, 2, 2), torch.nan)).to_numpy()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pillow_images_come_back(channels: int) -> None:
    given = array(np.uint8, channels)
    pillow = PIL.Image.fromarray(given[:, :, 0] if channels == 1 else given)
    image = Image.from_pil(pillow)
    np.testing.assert_array_equal(image.to_numpy().reshape(given.shape), given)
    back = image.to_pil()
    assert (back.mode, back.size) == (MODES[channels], pillow.size)
    assert back.tobytes() == pillow.tobytes()


def test_deep_gray_keeps_its_bits() -> None:
    given = array(np.uint16, 1)[:, :, 0]
    image = Image.from_pil(PIL.Image.fromarray(given))
    assert image.bit_depth == 16
    back = image.to_pil()
    assert back.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(back), given)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_pillow_has_no_deep_color(channels: int) -> None:
    image = Image.from_numpy(array(np.uint16, channels))
    with pytest.raises(ValueError, match=r"bit_depth: got 16, and Pillow has no 16-bit images with color or alpha"):
        image.to_pil()
    assert replace(image, bit_depth=8).to_pil().mode == MODES[channels]


def test_palettes_and_cmyk_become_rgb() -> None:
    photo = PIL.Image.fromarray(skimage.data.astronaut()[:20, :30])
    palette = photo.quantize(16)
    np.testing.assert_array_equal(Image.from_pil(palette).to_numpy(), np.asarray(palette.convert("RGB")))
    with pytest.warns(FileWarning, match=r"^image: it has CMYK colors without a profile"):
        assert Image.from_pil(photo.convert("CMYK")).to_numpy().shape == (20, 30, 3)


def test_what_belongs_to_a_file_goes_with_it() -> None:
    """Profile, EXIF, XMP and resolution, from file to Pillow to file."""
    exif = PIL.Image.Exif()
    exif[0x110] = "Model 1"
    exif[0x112] = 6
    memory = io.BytesIO()
    options = {"icc_profile": srgb_profile(), "exif": exif, "xmp": b"<a/>", "dpi": (300, 300)}
    PIL.Image.fromarray(skimage.data.astronaut()[:20, :30]).save(memory, "WEBP", lossless=True, **options)
    expected = read_image(memory.getvalue())
    assert expected.size == (30, 20)
    with PIL.Image.open(memory) as opened:
        image = Image.from_pil(opened)
    assert torch.equal(image.color, expected.color)
    assert (image.icc_profile, image.metadata.xmp) == (srgb_profile(), b"<a/>")
    assert image.metadata.exif is not None
    again = Image.from_pil(image.to_pil())
    assert torch.equal(again.color, image.color)
    assert (again.icc_profile, again.metadata) == (image.icc_profile, image.metadata)
    memory = io.BytesIO()
    back = image.to_pil()
    assert back.getexif()[0x110] == "Model 1"
    assert 0x112 not in back.getexif()
    back.save(memory, "JPEG", **back.info)
    written = read_image(memory.getvalue())
    assert written.icc_profile == srgb_profile()
    assert written.metadata == image.metadata


def test_resolution_and_color_chunks_reach_pillow() -> None:
    linear = ColorChunks((("gAMA", (100_000).to_bytes(4, "big")),))
    image = Image(torch.rand(1, 3, 4, 6), color_chunks=linear, metadata=Metadata(resolution=(300.0, 150.0)))
    pillow = image.to_pil()
    assert pillow.info["dpi"] == (300.0, 150.0)
    assert pillow.info["icc_profile"] == linear.profile(3)
    back = Image.from_pil(pillow)
    assert back.metadata.resolution == (300.0, 150.0)
    assert back.icc_profile == linear.profile(3)


def test_arrays_are_as_files_hold_them(tmp_path: Any) -> None:
    image = Image.from_numpy(array(np.uint16, 4))
    write_image(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").to_numpy(), image.to_numpy())
