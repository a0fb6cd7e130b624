"""The similarity of one query patch and one key patch."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.batch import Each, item_kernel, run_items
from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.cpu.constraints import Limits
from patchattn.kernels.cpu.padded_image import PaddedImage, three
from patchattn.kernels.cpu.patch_sums import PatchSteps, sum_absolute_difference, sum_product, sum_squared_difference
from patchattn.problem import PatchGeometry

__all__ = [
    "CHUNK",
    "Pairs",
    "Patches",
    "chunk_of",
    "inverse_norms",
    "kind_of",
    "measure",
    "measure_pair",
    "offset_of",
    "patches_of",
    "pointwise_of",
    "squared_norms",
]

CHUNK = 2048
"""Positions in one range of work: small enough to share out evenly, large enough to outweigh the call."""

MOST_RANGES = 64


def chunk_of(count: int) -> int:
    """Positions in one range of work that is short: no more than MOST_RANGES ranges, since each begins in Python."""
    return max(CHUNK, -(-count // MOST_RANGES))


L2, L1, DOT, COSINE, POINTWISE = range(5)
KINDS = {"l2": L2, "l1": L1, "dot": DOT, "scaled_dot": DOT, "cosine": COSINE}

# A partial sum is compared with the worst match after this many numbers: often enough to save most of a long patch,
# seldom enough that a short one (7x7 RGB) is not slowed down by a branch that the processor cannot foresee.
NUMBERS_BETWEEN_CHECKS = 256


class Patches(NamedTuple):
    """Sizes and distances, in elements of the padded channel-last arrays."""

    kind: int
    slices: int
    rows: int
    length: int
    channels: int
    check: int
    q_t: int
    q_h: int
    q_w: int
    q_slice: int
    q_row: int
    k_t: int
    k_h: int
    k_w: int
    k_slice: int
    k_row: int


class Pairs(NamedTuple):
    """Query and key of one item (or, as `Each`, of all), and which key positions a query may match."""

    query: Any
    key: Any
    q_norms: Any
    """1 / norm of every patch, for the cosine; otherwise empty. So are the key's."""
    k_norms: Any
    scale: Any
    function: Any
    """The user's; None for the built-in similarities."""
    patches: Patches
    limits: Limits
    query_mask: Any
    key_mask: Any


def kind_of(geometry: PatchGeometry) -> int:
    return KINDS.get(geometry.similarity.name, POINTWISE)


def pointwise_of(geometry: PatchGeometry) -> Any:
    """The user's function, compiled to be inlined; None for the built-in similarities."""
    function = geometry.similarity.function
    return None if function is None else inlined(function)


def patches_of(query: PaddedImage, key: PaddedImage, geometry: PatchGeometry) -> Patches:
    slices, rows, width = three(geometry.patch_size, 1)
    length = width * query.channels
    steps = []
    for image in (query, key):
        row = (image.size[2] + 2 * image.radius[2]) * image.channels
        steps.append((*image.size, (image.size[1] + 2 * image.radius[1]) * row, row))
    check = -(-NUMBERS_BETWEEN_CHECKS // length)
    return Patches(kind_of(geometry), slices, rows, length, query.channels, check, *steps[0], *steps[1])


@inlined
def offset_of(position: int, height: int, width: int, slice_step: int, row_step: int, channels: int) -> int:
    """Index in the padded array at which the patch of a flat position starts."""
    row = np.int64(np.uint32(position) // np.uint32(width))
    x = position - row * width
    t = np.int64(0)
    if row >= height:
        t = np.int64(np.uint32(row) // np.uint32(height))
        row -= t * height
    return t * slice_step + row * row_step + x * channels


@inlined
def measure(
    query: Any, q_start: int, key: Any, k_start: int, i: int, j: int,
    q_norms: Any, k_norms: Any, scale: float, function: Any, patches: Any, worst: float,
) -> float:  # fmt: skip
    """Similarity of the patches that start at `q_start` and `k_start`; anything below `worst` if it is no better."""
    p = patches
    if function is not None:
        total = query.dtype.type(0)
        for a in range(p.slices):
            for b in range(p.rows):
                q_at, k_at = q_start + a * p.q_slice + b * p.q_row, k_start + a * p.k_slice + b * p.k_row
                for c in range(p.length):
                    total += function(query[q_at + c], key[k_at + c])
        return total
    steps = PatchSteps(p.slices, p.rows, p.length, p.q_slice, p.q_row, p.k_slice, p.k_row, p.check)
    if p.kind == L2:
        return -sum_squared_difference(query, q_start, key, k_start, steps, -worst)
    if p.kind == L1:
        return -sum_absolute_difference(query, q_start, key, k_start, steps, -worst)
    product = sum_product(query, q_start, key, k_start, steps, worst)
    if p.kind == COSINE:
        return (product * q_norms[i]) * k_norms[j]
    return product * scale


@inlined
def measure_pair(pairs: Any, q_start: int, k_start: int, i: int, j: int, worst: float) -> float:
    """`measure` for query i and key j of `Pairs`."""
    return measure(
        pairs.query, q_start, pairs.key, k_start, i, j, pairs.q_norms, pairs.k_norms, pairs.scale, pairs.function,
        pairs.patches, worst,
    )  # fmt: skip


def inverse_norms(image: PaddedImage, geometry: PatchGeometry) -> NDArray[Any]:
    """1 / norm of every patch (0 where the norm is 0), for the cosine; otherwise nothing: a row for each item."""
    if kind_of(geometry) != COSINE:
        return image.rows[:, :0]
    squares = squared_norms(image.rows, image, patches_of(image, image, geometry))
    return np.divide(1, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0)


def squared_norms(rows: NDArray[Any], image: PaddedImage, patches: Patches) -> NDArray[Any]:
    """Sum of squares of every patch, for some items of an image."""
    items, count = len(rows), image.size[0] * image.size[1] * image.size[2]
    output = np.empty((items, count), rows.dtype)
    row = (image.size[2] + 2 * image.radius[2]) * image.channels
    slice_step = (image.size[1] + 2 * image.radius[1]) * row
    run_items(
        _squared_norm_range, range(items), count, CHUNK, Each(rows), patches, *image.size[1:], slice_step, row,
        Each(output),
    )  # fmt: skip
    return output


@item_kernel()
def _squared_norm_range(
    low: int, high: int, image: Any, patches: Any, height: int, width: int, slice_step: int, row_step: int, output: Any
) -> None:
    p = patches
    steps = PatchSteps(p.slices, p.rows, p.length, slice_step, row_step, slice_step, row_step, p.check)
    for i in range(low, high):
        start = offset_of(i, height, width, slice_step, row_step, p.channels)
        output[i] = sum_product(image, start, image, start, steps, image[start])
