"""The tasks on arrays: inpaint, upscale, colorize and reconstruct."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from patchattn.arrays.convert import Sample, to_array, to_image, to_mask
from patchattn.search_methods import SearchMethod
from patchattn.settings import Method, SimilarityName
from patchattn.similarity import Similarity
from patchattn.tasks.colorize import colorize as colorize_image
from patchattn.tasks.inpaint import inpaint as inpaint_image
from patchattn.tasks.reconstruct import reconstruct as reconstruct_image
from patchattn.tasks.upscale import upscale as upscale_image

__all__ = ["colorize", "inpaint", "reconstruct", "upscale"]


def inpaint(
    image: NDArray[Sample],
    mask: ArrayLike | None = None,
    *,
    grow: int = 0,
    keep_out: ArrayLike | None = None,
    guide: NDArray[Any] | None = None,
    patch_size: int = 11,
    levels: int | None = None,
    quality: str = "good",
    iterations: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> NDArray[Sample]:
    """Fill the masked pixels of an image with patches from the rest of it.

    Like `skimage.restoration.inpaint_biharmonic` and `cv2.inpaint`, which carry colors in from the border smoothly;
    this copies texture.

    Args:
        image: `(height, width)` or `(height, width, 1 to 4)`, see `patchattn.arrays`. What it holds under the mask,
            NaN for instance, has no influence. Alpha is completed like a color.
        mask: the pixels to fill, `(height, width)`: True, or not 0 (255, 1). None: all pixels that are not fully
            opaque; the result then has no alpha.
        grow: dilation of the mask in pixels.
        keep_out: mask of the pixels that nothing is copied from.
        guide: maps by which patches are compared beside the colors, `(height, width)` or `(height, width, maps)`,
            known under the mask too.
        patch_size, levels, quality, iterations, seed, progress: see `patchattn.tasks.inpaint.inpaint`, which this runs.

    Returns:
        A new array of the image's shape and dtype. All other pixels are as they were, to the bit.

    Raises:
        ValueError: an array has another shape or dtype, the image has values outside [0, 1] beside the mask, there
            is nothing to copy from, or an argument is out of range.

    Example:
        >>> stripes = np.tile(np.repeat([50, 200], 4).astype(np.uint8), (48, 6))
        >>> mask = np.zeros((48, 48), bool)
        >>> mask[16:34, 20:38] = True
        >>> filled = inpaint(np.where(mask, 0, stripes), mask)
        >>> filled.dtype, bool((filled[~mask] == stripes[~mask]).all())
        (dtype('uint8'), True)
    """
    image = np.asarray(image)
    hole = None if mask is None else to_mask("mask", mask, image.shape[:2])
    given = image if hole is None or image.dtype.kind != "f" else _without(image, hole.numpy())
    maps = None
    if guide is not None:
        guide = np.asarray(guide)
        if guide.shape[:2] != image.shape[:2] or guide.ndim not in (2, 3) or guide.dtype.kind not in "buif":
            raise ValueError(
                f"guide: got shape {guide.shape} of {guide.dtype}; expected numbers of shape {image.shape[:2]}, or "
                "with one axis more for several maps."
            )
        maps = torch.from_numpy(np.atleast_3d(guide).transpose(2, 0, 1).astype(np.float32, order="C"))
    result = inpaint_image(
        to_image("image", given),
        hole,
        grow=grow,
        keep_out=None if keep_out is None else to_mask("keep_out", keep_out, image.shape[:2]),
        guide=maps,
        patch_size=patch_size,
        levels=levels,
        quality=quality,
        iterations=iterations,
        seed=seed,
        progress=progress,
    )
    filled = to_array(result.image, image)
    if image.dtype.itemsize > 4:
        # Single precision has rounded what is known.
        before = given if given.ndim == 2 else given[:, :, : filled.shape[2]]
        known = filled == before.astype(np.float32)
        filled[known] = before[known]
    return filled


def upscale(
    image: NDArray[Sample],
    scale: int = 2,
    *,
    patch_size: int = 5,
    k: int = 3,
    temperature: float = 0.1,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> NDArray[Sample]:
    """Enlarge an image 2, 3, 4, 8 or 16 times, with detail from its own patches.

    Like `skimage.transform.rescale` and `cv2.resize`, which interpolate.

    Args:
        image: `(height, width)` or `(height, width, 1 to 4)`, see `patchattn.arrays`.
        scale, patch_size, k, temperature, seed, progress: see `patchattn.tasks.upscale.upscale`, which this runs.

    Returns:
        An array `(scale * height, scale * width, ...)` of the image's dtype.

    Raises:
        ValueError: the array has another shape or dtype or floats outside [0, 1], or an argument is out of range.

    Example:
        >>> upscale(np.full((20, 30, 3), 0.5), 3).shape
        (60, 90, 3)
    """
    image = np.asarray(image)
    result = upscale_image(
        to_image("image", image),
        scale,
        patch_size=patch_size,
        k=k,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )
    return to_array(result.image, image)


def colorize(
    gray: NDArray[Sample],
    reference: NDArray[Any],
    *,
    k: int = 3,
    patch_size: int = 11,
    aggregate: bool = True,
    temperature: float = 1.0,
    scale: int | None = None,
    method: str = "auto",
    iterations: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> NDArray[Sample]:
    """Color a gray image with the colors of similar patches in a reference image.

    Args:
        gray: the image to color, `(height, width)` or `(height, width, 1 to 4)`; of a colored one only the luminance is
            used.
        reference: the image to take colors from, `(height2, width2, 3)` or with alpha, of any dtype; both in sRGB.
        k, patch_size, aggregate, temperature, scale, method, iterations, seed, progress: see
            `patchattn.tasks.colorize.colorize`, which this runs.

    Returns:
        An array `(height, width, 3)`, or 4 if `gray` has alpha, of the dtype of `gray`.

    Raises:
        ValueError: an array has another shape or dtype or floats outside [0, 1], the reference is gray, or an argument
            is out of range.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> reference = np.random.default_rng(0).random((24, 32, 3))
        >>> colorize(reference.mean(2), reference, patch_size=3).shape
        (24, 32, 3)
    """
    gray = np.asarray(gray)
    result = colorize_image(
        to_image("gray", gray),
        to_image("reference", reference),
        k=k,
        patch_size=patch_size,
        aggregate=aggregate,
        temperature=temperature,
        scale=scale,
        method=method,
        iterations=iterations,
        seed=seed,
        progress=progress,
    )
    return to_array(result.image, gray)


def reconstruct(
    image: NDArray[Sample],
    reference: NDArray[Any],
    *,
    k: int = 3,
    patch_size: int = 7,
    aggregate: bool = False,
    similarity: SimilarityName | Similarity = "l2",
    temperature: float = 1.0,
    method: Method | SearchMethod = "auto",
    iterations: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> NDArray[Sample]:
    """Rebuild an image from the pixels of a reference.

    Args:
        image: the image to rebuild, `(height, width)` or `(height, width, 1 to 4)`, see `patchattn.arrays`.
        reference: the image to take pixels from, of any size and dtype.
        k, patch_size, aggregate, similarity, temperature, method, iterations, seed, progress: see
            `patchattn.tasks.reconstruct.reconstruct`, which this runs.

    Returns:
        An array of the image's size and dtype; with colors if either image has them, and the image's alpha.

    Raises:
        ValueError: an array has another shape or dtype or floats outside [0, 1], the reference has fewer than k pixels,
            or an argument is out of range.

    Example:
        >>> image = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
        >>> rebuilt = reconstruct(image, np.roll(image, 5, axis=1), k=1, patch_size=1)
        >>> bool((rebuilt == image).all())
        True
    """
    image = np.asarray(image)
    result = reconstruct_image(
        to_image("image", image),
        to_image("reference", reference),
        k=k,
        patch_size=patch_size,
        aggregate=aggregate,
        similarity=similarity,
        temperature=temperature,
        method=method,
        iterations=iterations,
        seed=seed,
        progress=progress,
    )
    return to_array(result.image, image)


def _without(image: NDArray[Sample], hole: NDArray[np.bool_]) -> NDArray[Sample]:
    """The image with 0 in the hole."""
    cleared = image.copy()
    cleared[hole] = 0
    return cleared
