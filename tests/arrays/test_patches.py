"""Nearest patches as arrays: known shifts, and the conventions of scikit-image and SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import skimage.transform
from hypothesis import given, settings
from hypothesis import strategies as st

from patchattn.arrays import nearest_patches

pytestmark = pytest.mark.usefixtures("one_thread")

Array = np.ndarray[Any, Any]


def noise(height: int, width: int, *channels: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).random((height, width, *channels))


def brute_force(a: Array, b: Array, patch_size: int, norm: int) -> Array:
    """The smallest distance of every patch of a gray image."""
    reach = patch_size // 2
    patches = [
        np.lib.stride_tricks.sliding_window_view(
            np.pad(image, reach, mode="reflect"), (patch_size, patch_size)
        ).reshape(image.size, -1)
        for image in (a, b)
    ]
    distances = (np.abs(patches[0][:, None] - patches[1][None]) ** norm).sum(-1)
    least: Array = distances.min(1).reshape(a.shape)
    return least


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("channels", [(), (1,), (3,), (4,)], ids=str)
def test_a_shifted_image_gives_the_shift(dtype: Any, channels: tuple[int, ...]) -> None:
    a = noise(28, 36, *channels)
    a = (a * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else a.astype(dtype)
    coordinates, distances = nearest_patches(a, np.roll(a, (4, -6), axis=(0, 1)), patch_size=5)
    assert (coordinates.shape, coordinates.dtype) == ((2, 28, 36), np.int64)
    assert distances.shape == (28, 36)
    assert distances.dtype == np.float32
    inside = (slice(3, 20), slice(10, 30))  # whose patches were not rolled over a border
    offsets = coordinates - np.mgrid[:28, :36]
    assert (offsets[0][inside] == 4).all()
    assert (offsets[1][inside] == -6).all()
    assert (distances[inside] == 0).all()


def test_coordinates_fit_where_scikit_image_and_scipy_take_them() -> None:
    a, b = skimage.data.camera()[200:224, 200:230] / 255, skimage.data.camera()[194:230, 190:234] / 255
    coordinates, _ = nearest_patches(a, b, method="exact")
    found = b[tuple(coordinates)]
    rows, columns = coordinates
    np.testing.assert_array_equal(b[rows, columns], found)
    np.testing.assert_array_equal(skimage.transform.warp(b, coordinates, order=0), found)
    np.testing.assert_array_equal(scipy.ndimage.map_coordinates(b, coordinates, order=0), found)
    np.testing.assert_array_equal(found[3:-3, 3:-3], a[3:-3, 3:-3])  # a is a part of b


@pytest.mark.parametrize(("similarity", "norm"), [("l2", 2), ("l1", 1)])
def test_distances_are_those_of_brute_force(similarity: str, norm: int) -> None:
    a, b = noise(13, 17), noise(19, 11, seed=1)
    coordinates, distances = nearest_patches(a, b, patch_size=5, similarity=similarity, method="exact")
    np.testing.assert_allclose(distances, brute_force(a, b, 5, norm), rtol=1e-5)
    assert coordinates[0].max() < 19
    assert coordinates[1].max() < 11


def test_the_cosine_distance_is_that_of_the_angle() -> None:
    a = noise(12, 14)
    coordinates, distances = nearest_patches(a, 0.5 * a, patch_size=3, similarity="cosine")
    np.testing.assert_array_equal(coordinates, np.mgrid[:12, :14])
    assert ((distances >= 0) & (distances < 1e-6)).all()
    _, far = nearest_patches(a, a[::-1] ** 3, patch_size=3, similarity="cosine")
    assert (far > 1e-3).any()


def test_the_nearest_come_first() -> None:
    a, b = noise(16, 18, 3), noise(20, 15, 3, seed=1)
    one, several, single = (nearest_patches(a, b, k=k, patch_size=3, method="exact") for k in (None, 4, 1))
    assert (several.coordinates.shape, several.distances.shape) == ((2, 4, 16, 18), (4, 16, 18))
    assert single.coordinates.shape == (2, 1, 16, 18)
    np.testing.assert_array_equal(several.coordinates[:, 0], one.coordinates)
    np.testing.assert_array_equal(single.distances[0], one.distances)
    assert (np.diff(several.distances, axis=0) >= 0).all()
    assert b[tuple(several.coordinates)].shape == (4, 16, 18, 3)


def test_masks_say_which_take_part() -> None:
    a = noise(16, 18)
    valid = np.ones((16, 18), np.uint8)
    valid[:, 9:] = 0
    coordinates, distances = nearest_patches(a, a, patch_size=3, a_mask=valid, b_mask=255 * (1 - valid))
    assert (coordinates[:, :, 9:] == -1).all()
    assert np.isinf(distances[:, 9:]).all()
    assert (coordinates[1, :, :9] >= 9).all()
    assert (distances[:, :9] > 0).all()


def test_options_are_passed_on() -> None:
    a = noise(16, 18)
    apart = nearest_patches(a, a, k=2, patch_size=(3, 1), min_separation=4, method="exact").coordinates
    assert np.abs(apart[:, 0] - apart[:, 1]).max(0).min() >= 4
    near = nearest_patches(a, noise(16, 18, seed=1), max_offset=(2, 0), method="exact").coordinates - np.mgrid[:16, :18]
    assert np.abs(near[0]).max() == 2
    assert not near[1].any()
    causal = nearest_patches(a, a, is_causal="strict", patch_size=1, method="exact").coordinates
    assert (causal[:, 0, 0] == -1).all()
    inside = nearest_patches(a, a, patch_size=5, padding_mode="valid").coordinates
    assert (inside[:, :2] == -1).all()
    long = nearest_patches(a, noise(16, 18, seed=1), method="patchmatch", iterations=1, seed=5)
    same = nearest_patches(a, noise(16, 18, seed=1), method="patchmatch", iterations=1, seed=5)
    np.testing.assert_array_equal(long.coordinates, same.coordinates)


def test_gray_is_compared_with_colors() -> None:
    gray = noise(12, 14)
    coordinates, distances = nearest_patches(gray, np.dstack([gray] * 3), patch_size=3, method="exact")
    np.testing.assert_array_equal(coordinates, np.mgrid[:12, :14])
    assert not distances.any()


@settings(max_examples=20)
@given(
    sizes=st.tuples(*4 * [st.integers(1, 12)]),
    patch_size=st.sampled_from([1, 3, 7]),
    dtypes=st.tuples(*2 * [st.sampled_from([np.uint8, np.uint16, np.float32, np.float64])]),
)
def test_any_sizes_and_dtypes(sizes: tuple[int, int, int, int], patch_size: int, dtypes: tuple[Any, Any]) -> None:
    """Every pixel has a match, and the distance is no less than brute force finds with the same border."""
    a, b = (
        (image * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else image.astype(dtype)
        for image, dtype in zip((noise(*sizes[:2]), noise(*sizes[2:], seed=1)), dtypes, strict=True)
    )
    coordinates, distances = nearest_patches(a, b, patch_size=patch_size)
    for axis, (found, size) in enumerate(zip(coordinates, b.shape, strict=True)):
        assert found.shape == a.shape, axis
        assert ((found >= 0) & (found < size)).all()
    assert (distances >= 0).all()
    if patch_size == 1:
        levels = [image / np.iinfo(image.dtype).max if image.dtype.kind == "u" else image for image in (a, b)]
        expected = (levels[0] - levels[1][tuple(coordinates)]) ** 2
        np.testing.assert_allclose(distances, expected, rtol=1e-3, atol=1e-6)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no distance": (
        lambda: nearest_patches(noise(8, 8), noise(8, 8), similarity="dot"),
        "similarity: got 'dot'; allowed are 'l2', 'l1', 'cosine'",
    ),
    "a": (lambda: nearest_patches(noise(8, 8) * 255, noise(8, 8)), r"a: it holds NaN or floats outside \[0, 1\]"),
    "b": (lambda: nearest_patches(noise(8, 8), noise(8, 8, 6)), r"b: got shape \(8, 8, 6\) of float64; expected"),
    "a_mask": (
        lambda: nearest_patches(noise(8, 8), noise(8, 8), a_mask=np.ones((8, 9))),
        r"a_mask: got shape \(8, 9\); expected the image's height and width, \(8, 8\)",
    ),
    "b_mask": (lambda: nearest_patches(noise(8, 8), noise(9, 8), b_mask=np.ones((8, 8))), "b_mask: got shape"),
    "even patch": (lambda: nearest_patches(noise(8, 8), noise(8, 8), patch_size=4), "patch_size: .* odd"),
    "k": (lambda: nearest_patches(noise(8, 8), noise(8, 8), k=0), "k: expected an integer of at least 1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_mistakes_are_refused(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
