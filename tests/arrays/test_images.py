"""The tasks on arrays: what tensors would give, in the layout, dtype and bits of the array that came."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
import skimage.util
from hypothesis import given, settings
from hypothesis import strategies as st

from patchattn import arrays
from patchattn.tasks.colorize import colorize
from patchattn.tasks.image import Image
from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.reconstruct import reconstruct
from patchattn.tasks.upscale import upscale

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.needs("cpu"),  # the reference would take minutes
]

Array = np.ndarray[Any, Any]
DTYPES = [np.uint8, np.uint16, np.float16, np.float32, np.float64, np.dtype(">u2"), np.dtype(">f4")]
SHAPES = [(), (1,), (2,), (3,), (4,)]


def noise(height: int, width: int, *channels: int, dtype: Any = np.uint8, seed: int = 0) -> Array:
    values = np.random.default_rng(seed).random((height, width, *channels))
    kind = np.dtype(dtype)
    return (values * np.iinfo(kind).max if kind.kind == "u" else values).astype(kind)


def hole(height: int, width: int) -> Array:
    mask = np.zeros((height, width), bool)
    mask[height // 3 : height // 2, width // 4 : width // 2] = True
    return mask


@pytest.mark.parametrize(
    ("ours", "tasks", "left_out"),
    [
        (arrays.inpaint, inpaint, {"network"}),
        (arrays.upscale, upscale, {"network"}),
        (arrays.colorize, colorize, {"network", "init"}),
        (arrays.reconstruct, reconstruct, set()),
    ],
)
def test_options_are_those_of_the_task(ours: Callable[..., Any], tasks: Callable[..., Any], left_out: set[str]) -> None:
    """All but what takes networks or fields, with the same defaults."""
    options, expected = (
        {p.name: p.default for p in inspect.signature(function).parameters.values() if p.kind == p.KEYWORD_ONLY}
        for function in (ours, tasks)
    )
    assert options == {name: default for name, default in expected.items() if name not in left_out}


@pytest.mark.parametrize("function", [getattr(arrays, name) for name in arrays.__all__], ids=arrays.__all__)
def test_no_tensor_is_in_a_signature(function: Callable[..., Any]) -> None:
    signature = str(inspect.signature(function))
    assert "Tensor" not in signature
    assert "MatchField" not in signature


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_known_pixels_keep_their_bits(dtype: Any) -> None:
    image, mask = noise(30, 36, 3, dtype=dtype), hole(30, 36)
    filled = arrays.inpaint(image, mask, quality="fast")
    assert (filled.shape, filled.dtype) == (image.shape, image.dtype)
    assert filled[~mask].tobytes() == image[~mask].tobytes()
    assert (filled[mask] != image[mask]).any()


@pytest.mark.parametrize("channels", SHAPES, ids=str)
def test_shapes_stay(channels: tuple[int, ...]) -> None:
    image, mask = noise(24, 30, *channels), hole(24, 30)
    colored = (3,) if channels in ((), (1,), (3,)) else (4,)
    assert arrays.inpaint(image, mask, quality="fast").shape == image.shape
    assert arrays.upscale(image, 2).shape == (48, 60, *channels)
    assert arrays.reconstruct(image, image[..., :1] if channels in ((), (1,)) else image).shape == image.shape
    assert arrays.colorize(image, noise(20, 20, 3)).shape == (24, 30, *colored)


def test_arrays_give_what_tensors_give() -> None:
    image, mask, other = skimage.data.coffee()[100:148, 200:260], hole(48, 60), skimage.data.astronaut()[:50, 200:250]
    whole, reference = Image.from_numpy(image), Image.from_numpy(other)
    gray = image[..., 1]
    expected = [
        inpaint(whole, Image.from_numpy(np.uint8(255) * mask).color[0, 0], seed=3, patch_size=7),
        upscale(whole, 3, k=2),
        colorize(Image.from_numpy(gray), reference, k=2, scale=1),
        reconstruct(whole, reference, k=2, aggregate=True),
    ]
    found = [
        arrays.inpaint(image, mask, seed=3, patch_size=7),
        arrays.upscale(image, 3, k=2),
        arrays.colorize(gray, other, k=2, scale=1),
        arrays.reconstruct(image, other, k=2, aggregate=True),
    ]
    for array, result in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, result.image.to_numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("channels", [(), (3,)], ids=str)
def test_a_constant_image_stays_constant(dtype: Any, channels: tuple[int, ...]) -> None:
    image, mask = np.full((24, 30, *channels), 0.25, np.float64), hole(24, 30)
    image = (image * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else image.astype(dtype)
    for result in (
        arrays.inpaint(np.where(mask.reshape(24, 30, *len(channels) * [1]), 0, image).astype(dtype), mask),
        arrays.upscale(image, 2),
        arrays.reconstruct(image, image),
    ):
        assert result.dtype == dtype
        np.testing.assert_allclose(result, image.flat[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    "form",
    [
        hole(30, 36),
        np.uint8(255) * hole(30, 36),
        hole(30, 36).astype(int),
        hole(30, 36).astype(np.float32),
        hole(30, 36)[..., None],
        hole(30, 36).tolist(),
        np.asfortranarray(hole(30, 36)),
    ],
    ids=["bool", "255", "int", "float", "3d", "list", "transposed"],
)
def test_masks_of_any_kind(form: Any) -> None:
    image, mask = noise(30, 36, 3), hole(30, 36)
    expected = arrays.inpaint(image, mask, quality="fast")
    np.testing.assert_array_equal(arrays.inpaint(image, form, quality="fast"), expected)
    kept_out = arrays.inpaint(image, mask, keep_out=np.roll(form, 12, axis=0), quality="fast")
    assert (kept_out != expected).any()


def test_arrays_of_any_layout_and_read_only_ones() -> None:
    image, mask = noise(30, 36, 3), hole(30, 36)
    frozen = image.copy()
    frozen.flags.writeable = False
    views = [frozen, np.asfortranarray(image), image[::-1][::-1], np.repeat(image, 2, 1)[:, ::2]]
    calls: list[Callable[[Array], Array]] = [
        lambda array: arrays.inpaint(array, mask, quality="fast"),
        lambda array: arrays.upscale(array, 2),
        lambda array: arrays.colorize(array, array),
        lambda array: arrays.reconstruct(array, array),
    ]
    for call in calls:
        expected = call(image)
        for view in views:
            np.testing.assert_array_equal(call(view), expected)
    turned = arrays.inpaint(image[::-1, ::-1], mask[::-1, ::-1], quality="fast")
    np.testing.assert_array_equal(turned[~mask[::-1, ::-1]], image[::-1, ::-1][~mask[::-1, ::-1]])


def test_nothing_under_the_mask_has_influence() -> None:
    image, mask = noise(30, 36, 3, dtype=np.float32), hole(30, 36)
    expected = arrays.inpaint(image, mask, quality="fast")
    for value in (np.nan, np.inf, -7.0):
        spoiled = image.copy()
        spoiled[mask] = value
        np.testing.assert_array_equal(arrays.inpaint(spoiled, mask, quality="fast"), expected)
        assert (spoiled[mask] == value).all() or np.isnan(spoiled[mask]).all()


def test_transparent_pixels_are_filled_without_a_mask() -> None:
    image, mask = noise(30, 36, 4), hole(30, 36)
    image[..., 3] = 255 - np.uint8(200) * mask
    filled = arrays.inpaint(image, quality="fast")
    np.testing.assert_array_equal(filled, arrays.inpaint(image[..., :3], mask, quality="fast"))


def test_a_guide_of_arrays() -> None:
    """Blue all around the hole; the guide calls it what it calls the red half."""
    image, mask = noise(48, 80, 3), np.zeros((48, 80), bool)
    image[:, :40, 1:] //= 4
    image[:, 40:, :2] //= 4
    mask[14:34, 52:72] = True
    guide = 10 * ((np.arange(80) >= 40) & ~mask)
    for by, channel in ((None, 2), (guide, 0), (np.stack([guide, guide], -1).astype(float), 0)):
        filled = arrays.inpaint(image, mask, guide=by, patch_size=7, quality="fast")
        assert filled[18:30, 56:68].mean((0, 1)).argmax() == channel


@settings(max_examples=12)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from(SHAPES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**31),
)
def test_any_small_image(height: int, width: int, channels: tuple[int, ...], dtype: Any, seed: int) -> None:
    image = noise(height, width, *channels, dtype=dtype, seed=seed)
    large = arrays.upscale(image, 2)
    assert (large.shape, large.dtype) == ((2 * height, 2 * width, *channels), image.dtype)
    mask = np.random.default_rng(seed).random((height, width)) < 0.3
    filled = arrays.inpaint(image, mask, patch_size=1) if not mask.all() else image
    assert (filled.shape, filled.dtype) == (image.shape, image.dtype)
    assert filled[~mask].tobytes() == image[~mask].tobytes()
    rebuilt = arrays.reconstruct(image, image, k=1, patch_size=1, method="exact")
    assert (rebuilt.shape, rebuilt.dtype) == (image.shape, image.dtype)
    colored = arrays.colorize(image, noise(9, 8, 3), k=1)
    assert (colored.shape[:2], colored.dtype) == ((height, width), image.dtype)
    for result in (large, filled, rebuilt, colored):
        assert np.isfinite(result).all()
        assert result.dtype.kind == "u" or (result.min() >= 0 and result.max() <= 1)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "five channels": (
        lambda: arrays.upscale(noise(8, 8, 5)),
        r"image: got shape \(8, 8, 5\) of uint8; expected \(height, width\) or",
    ),
    "one dimension": (lambda: arrays.upscale(noise(8, 8)[0]), r"image: got shape \(8,\) of uint8"),
    "signed": (
        lambda: arrays.upscale(noise(8, 8).astype(np.int16)),
        r"image: .* of int16; .* of uint8, uint16 or floats",
    ),
    "bools": (lambda: arrays.upscale(noise(8, 8) > 9), r"image: got shape \(8, 8\) of bool"),
    "0 to 255": (
        lambda: arrays.upscale(noise(8, 8).astype(float)),
        r"image: it holds NaN or floats outside \[0, 1\]; scale it by its largest value, or clip it",
    ),
    "NaN": (lambda: arrays.inpaint(np.full((8, 8), np.nan), hole(8, 8)), "image: it holds NaN or floats outside"),
    "no pixels": (lambda: arrays.upscale(noise(0, 8)), r"image: got shape \(0, 8\), which has no pixels"),
    "reference": (lambda: arrays.reconstruct(noise(8, 8), noise(8, 8) - 0.5), "reference: it holds NaN or floats"),
    "gray reference": (lambda: arrays.colorize(noise(8, 8), noise(8, 8)), "reference: it has one channel, gray"),
    "colorized": (lambda: arrays.colorize(noise(8, 8, 3) * 2.0, noise(8, 8, 3)), "gray: it holds NaN or floats"),
    "size of a mask": (
        lambda: arrays.inpaint(noise(8, 8, 3), hole(8, 9)),
        r"mask: got shape \(8, 9\); expected the image's height and width, \(8, 8\)",
    ),
    "mask of color": (lambda: arrays.inpaint(noise(8, 8, 3), noise(8, 8, 3)), r"mask: got shape \(8, 8, 3\)"),
    "mask of words": (
        lambda: arrays.inpaint(noise(8, 8), np.full((8, 8), "a")),
        "mask: got an array of <U1; expected bools, or numbers that are not 0 where it is True",
    ),
    "mask of NaN": (lambda: arrays.inpaint(noise(8, 8), np.full((8, 8), np.nan)), "mask: got NaN; expected bools"),
    "size of keep_out": (
        lambda: arrays.inpaint(noise(8, 8), hole(8, 8), keep_out=hole(9, 8)),
        r"keep_out: got shape \(9, 8\)",
    ),
    "size of the guide": (
        lambda: arrays.inpaint(noise(8, 8), hole(8, 8), guide=noise(9, 8)),
        r"guide: got shape \(9, 8\) of uint8; expected numbers of shape \(8, 8\), or with one axis more",
    ),
    "neither mask nor alpha": (lambda: arrays.inpaint(noise(8, 8)), "got None, and the image has no alpha"),
    "scale": (lambda: arrays.upscale(noise(8, 8), 5), "scale: got 5; allowed are 2, 3, 4, 8 and 16"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
