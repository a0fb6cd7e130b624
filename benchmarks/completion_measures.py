"""Measures of how much a completed hole looks like its true content: sharpness and texture.

They stand for what a person sees and do not replace looking: noise, or the wrong material, can have the right
sharpness.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

Image = NDArray[np.float64]
"""RGB (height, width, 3) in [0, 1]."""
Mask = NDArray[np.bool_]

PATCH = 7
MIN_PATCHES = 40
"""Fewer patches in a hole have no texture to compare."""
QUANTILES = np.linspace(0, 1, 400)
DIRECTIONS = np.random.default_rng(0).normal(size=(256, 3 * PATCH**2))
DIRECTIONS /= np.linalg.norm(DIRECTIONS, axis=1, keepdims=True)


class CompletionMeasures:
    """Measures of completions of one hole, of which the true content is known.

    - sharp: mean absolute difference of neighbors (gray) in the hole, 3 pixels away from its edge, over the truth's; 1
      is right.
    - abs_log: absolute logarithm of that; 0 is right. In its mean over images haze and noise do not cancel.
    - texture: sliced Wasserstein distance (256 fixed directions, 400 quantiles) between the patches of 7x7 that lie in
      the hole, each less its mean color, and the truth's; 0 is right.
    - texture2: the same at half the size.

    A measure is nan where the hole is too small for it, and the first two where the truth is all one color.
    """

    def __init__(self, truth: Image, hole: Mask) -> None:
        self._hole, self._core = hole, ndimage.binary_erosion(hole, iterations=3)
        small = half_size(truth)
        self._half_hole = hole[::2, ::2][: small.shape[0], : small.shape[1]]
        self._contrast = contrast(truth, self._core)
        self._texture, self._half_texture = texture(truth, hole), texture(small, self._half_hole)

    def __call__(self, filled: Image) -> dict[str, float]:
        sharp = contrast(filled, self._core) / self._contrast if self._contrast > 0 else math.nan
        return {
            "sharp": sharp,
            "abs_log": math.inf if sharp == 0 else abs(math.log(sharp)),
            "texture": float(np.abs(texture(filled, self._hole) - self._texture).mean()),
            "texture2": float(np.abs(texture(half_size(filled), self._half_hole) - self._half_texture).mean()),
        }


def contrast(image: Image, where: Mask) -> float:
    """Mean absolute difference from the neighbors above and to the left, in gray."""
    gray = image.mean(2)
    differences = np.abs(np.diff(gray, axis=0, prepend=gray[:1])) + np.abs(np.diff(gray, axis=1, prepend=gray[:, :1]))
    return float(differences[where].mean()) if where.any() else math.nan


def texture(image: Image, hole: Mask) -> NDArray[np.float32]:
    """Quantiles of the hole's patches, less their mean colors, projected onto each direction."""
    inside = sliding_window_view(hole, (PATCH, PATCH)).all((2, 3))
    if inside.sum() < MIN_PATCHES:
        return np.full((len(DIRECTIONS), len(QUANTILES)), np.nan, np.float32)
    patches = sliding_window_view(image, (PATCH, PATCH), axis=(0, 1))[inside].reshape(-1, 3, PATCH**2)
    patches = (patches - patches.mean(2, keepdims=True)).reshape(-1, 3 * PATCH**2)
    projected = np.sort(DIRECTIONS.astype(np.float32) @ patches.astype(np.float32).T, axis=1)
    positions = QUANTILES * (len(patches) - 1)
    below = positions.astype(int)
    above = np.minimum(below + 1, len(patches) - 1)
    part = (positions - below).astype(np.float32)
    quantiles: NDArray[np.float32] = projected[:, below] * (1 - part) + projected[:, above] * part
    return quantiles


def half_size(image: Image) -> Image:
    """Blur a little and take half of the rows and columns."""
    small: Image = ndimage.zoom(ndimage.gaussian_filter(image, (0.8, 0.8, 0)), (0.5, 0.5, 1), order=1)
    return small
