"""Conversion of arrays, as scikit-image lays them out, to the images and masks of tasks and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from patchattn.tasks.image import Image

__all__ = ["Sample", "to_array", "to_image", "to_mask"]

Sample = TypeVar("Sample", bound=np.generic)
"""Dtype of an image's samples: uint8, uint16, float16, float32 or float64."""


def to_image(name: str, array: NDArray[Any]) -> Image:
    """Convert an array, floats to single precision: that of the kernels that come compiled, and finer than any image.

    Raises:
        ValueError: the array has another shape or dtype, no pixels, or floats outside [0, 1].
    """
    array = np.asarray(array)
    if array.size == 0:
        raise ValueError(f"{name}: got shape {array.shape}, which has no pixels.")
    image = Image.from_numpy(array, argument=name)
    return replace(image, color=image.color.float(), alpha=None if image.alpha is None else image.alpha.float())


def to_array(image: Image, like: NDArray[Sample]) -> NDArray[Sample]:
    """Convert back to the dtype of an array, with an axis for the channel of gray where that has one."""
    array = image.to_numpy(like.dtype.newbyteorder("=")).astype(like.dtype, copy=False)
    return array[:, :, None] if array.ndim == 2 and like.ndim == 3 else array


def to_mask(name: str, mask: ArrayLike, size: tuple[int, ...]) -> Tensor:
    """Convert a mask of bools, or of numbers that are True where they are not 0.

    Raises:
        ValueError: the mask has another size, holds NaN, or no numbers.
    """
    array = np.asarray(mask)
    plane = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    if plane.shape != size:
        raise ValueError(f"{name}: got shape {array.shape}; expected the image's height and width, {size}.")
    if array.dtype.kind not in "buif" or np.isnan(plane).any():
        came = "NaN" if array.dtype.kind == "f" else f"an array of {array.dtype}"
        raise ValueError(f"{name}: got {came}; expected bools, or numbers that are not 0 where it is True.")
    return torch.from_numpy(np.ascontiguousarray(plane != 0))
