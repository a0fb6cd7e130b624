"""The nearest patches of every pixel of an image in another, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from patchattn.arrays.convert import to_image, to_mask
from patchattn.checks import check_choice
from patchattn.matching import match
from patchattn.search_methods import SearchMethod
from patchattn.settings import Causality, Method, PaddingMode
from patchattn.tasks.images import same_channels

__all__ = ["NearestPatches", "nearest_patches"]

DISTANCES = {"l2": 0, "l1": 0, "cosine": 1}
"""Similarity of equal patches, by name; others have none."""


class NearestPatches(NamedTuple):
    """Result of `nearest_patches`: `coordinates, distances = nearest_patches(a, b)`."""

    coordinates: NDArray[np.int64]
    """Rows and columns in `b`, `(2, height, width)` or `(2, k, height, width)`; -1 where there is none."""
    distances: NDArray[np.float32]
    """Distances to these patches, `(height, width)` or `(k, height, width)`; infinite where there is none."""


def nearest_patches(
    a: NDArray[Any],
    b: NDArray[Any],
    *,
    k: int | None = None,
    patch_size: int | Sequence[int] = 7,
    similarity: str = "l2",
    a_mask: ArrayLike | None = None,
    b_mask: ArrayLike | None = None,
    method: Method | SearchMethod = "auto",
    iterations: int | None = None,
    seed: int = 0,
    is_causal: Causality = False,
    min_separation: int | Sequence[int] = 0,
    max_offset: int | Sequence[int] | None = None,
    padding_mode: PaddingMode | None = None,
) -> NearestPatches:
    """Find, for every pixel of an image, where in another its patch is most alike.

    The axis of rows and columns comes first, as in `scipy.ndimage.map_coordinates`, `skimage.transform.warp` and
    `skimage.registration.optical_flow_tvl1`, so that

    - `rows, columns = coordinates`,
    - `b[tuple(coordinates)]` are the pixels found, in the size of `a`,
    - `skimage.transform.warp(b, coordinates, order=0)` are the same of gray images.

    Args:
        a: the image whose patches are looked for, `(height, width)` or `(height, width, 1 to 4)`, see
            `patchattn.arrays`. Alpha is not compared.
        b: the image in which they are looked for, of any size; gray is compared with colors as R = G = B.
        k: matches of each pixel, nearest first. None: the nearest, without an axis for it.
        patch_size: odd side of the patches, in pixels, or (rows, columns).
        similarity: `"l2"`: the distance is the sum of squared differences over the patch and the channels, of samples
            scaled to [0, 1]; `"l1"`: of absolute ones; `"cosine"`: 1 minus the cosine of the angle between the patches.
        a_mask, b_mask: pixels that look for a match, and that may be one: True, or not 0, as the masks of
            `skimage.registration.phase_cross_correlation`. None: all.
        method, iterations, seed, is_causal, min_separation, max_offset: see `patchattn.match`, which this runs.
        padding_mode: what a patch reads outside of the image, see `patchattn.match`. None: reflected pixels, or
            replicated ones where an image is too small for that.

    Returns:
        Coordinates of int64, and distances of float32.

    Raises:
        ValueError: an array has another shape or dtype or floats outside [0, 1], `similarity` is no distance, or an
            argument is out of range.

    Example:
        >>> a = np.random.default_rng(0).random((32, 40))
        >>> b = np.roll(a, (2, 5), axis=(0, 1))
        >>> coordinates, distances = nearest_patches(a, b, patch_size=5)
        >>> coordinates.shape, coordinates[:, 10, 10], float(distances[10, 10])
        ((2, 32, 40), array([12, 15]), 0.0)
    """
    check_choice("similarity", similarity, tuple(DISTANCES))
    query, key = same_channels(to_image("a", a), to_image("b", b))
    field = match(
        query,
        key,
        k=1 if k is None else k,
        patch_size=patch_size,
        similarity=similarity,  # type: ignore[arg-type]  # one of its names
        query_mask=_mask("a_mask", a_mask, query),
        key_mask=_mask("b_mask", b_mask, key),
        method=method,
        iterations=iterations,
        seed=seed,
        is_causal=is_causal,
        min_separation=min_separation,
        max_offset=max_offset,
        padding_mode=_padding_mode(patch_size, query, key) if padding_mode is None else padding_mode,
    )
    coordinates = field.coordinates()[0, 0].movedim(1, 0).contiguous().numpy()
    # Cosines of equal patches may be rounded to above 1.
    distances = (DISTANCES[similarity] - field.similarity[0, 0]).clamp(min=0).numpy()
    return NearestPatches(coordinates[:, 0], distances[0]) if k is None else NearestPatches(coordinates, distances)


def _mask(name: str, mask: ArrayLike | None, image: Tensor) -> Tensor | None:
    return None if mask is None else to_mask(name, mask, tuple(image.shape[2:]))[None]


def _padding_mode(patch_size: int | Sequence[int], *images: Tensor) -> PaddingMode:
    sides = (patch_size,) if isinstance(patch_size, int) else tuple(patch_size)
    shortest = min(min(image.shape[2:]) for image in images)
    return "reflect" if max(sides) // 2 < shortest else "replicate"
