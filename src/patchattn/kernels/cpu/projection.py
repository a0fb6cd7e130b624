"""Patches as a few 16-bit integers, so that their squared distances rank keys as the similarity does.

    l2, l1    p(x) = B^T (x - m)
    cosine    p(x) = B^T (x / |x| - m)
    dot       p(k) = B^T ([k, sqrt(M^2 - |k|^2)] - m),  p(q) = B^T ([M q / |q|, 0] - m),  M = max |k|

The right-hand sides keep the ranking of the similarity exactly before B is applied (the one of dot products because all
keys then have norm M); for l1 it is l2's that stands in. B holds the principal components of a sample of key patches, m
is its mean. Patches are never unfolded: the product with B reads them where they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import kernel
from patchattn.kernels.cpu.padded_image import PaddedImage
from patchattn.kernels.cpu.patch_similarity import DOT, Patches, chunk_of, offset_of, squared_norms
from patchattn.kernels.cpu.pool import run_ranges
from patchattn.kernels.cpu.products import (
    BLOCK,
    COLUMNS,
    VECTOR,
    BlockSteps,
    aligned_columns,
    block_product,
    multiply,
    quantize,
)
from patchattn.kernels.cpu.unfold import unfold
from patchattn.kernels.parameters import (
    COMPONENTS_PER_GROUP,
    HASH_MULTIPLIER,
    KEY_SAMPLES,
    MAX_COMPONENTS,
    MAX_NORM,
    MIN_COMPONENTS,
    POWER_ITERATIONS,
    QUERY_SAMPLES,
    VARIANCE_TARGET,
)

__all__ = ["Basis", "Projection", "Side", "fit_basis", "fit_projection", "key_side", "project", "query_side"]


@dataclass(frozen=True)
class Side:
    """Query or key of one item, with what its patches are changed by before they are projected (empty: nothing)."""

    image: PaddedImage
    array: NDArray[Any]
    is_key: bool
    factors: NDArray[Any]
    """The patch at a position is multiplied by this."""
    extra: NDArray[Any]
    """One more element of the patch at a position."""


class Basis(NamedTuple):
    """Principal components of key patches."""

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    explained: float
    """Share of the key patches' variance that the components hold."""
    longest: float
    """Norm of the longest projected patch of the sample."""


class Projection(NamedTuple):
    """The map from patches to components."""

    columns: NDArray[np.float32]
    """B, scaled, as `block_product` takes it; its lines in the order of a patch in memory."""
    vectors: int
    extra: NDArray[np.float32]
    """Factors of the extra element; like the offset in whole vectors, zeros at the end."""
    offset: NDArray[np.float32]
    num_components: int
    scale: float
    """The factor of the directions in B."""

    @property
    def width(self) -> int:
        """Numbers of one patch as they are stored: whole groups."""
        return -(-self.num_components // COMPONENTS_PER_GROUP) * COMPONENTS_PER_GROUP


def key_side(
    image: PaddedImage, array: NDArray[Any], inverse_norms: NDArray[Any], patches: Patches
) -> tuple[Side, float]:
    """The side of the keys, and M."""
    nothing = array[:0]
    if patches.kind != DOT:
        return Side(image, array, True, inverse_norms, nothing), 1.0
    squares = squared_norms(array[None], image, patches)[0]
    finite = squares[np.isfinite(squares)]
    largest = float(finite.max()) if finite.size else 0.0
    extra = np.sqrt(np.maximum(largest - squares, 0))
    return Side(image, array, True, nothing, extra), float(np.sqrt(largest))


def query_side(
    image: PaddedImage, array: NDArray[Any], inverse_norms: NDArray[Any], patches: Patches, largest: float
) -> Side:
    """The side of the queries; `largest` is the M of their keys."""
    nothing = array[:0]
    if patches.kind != DOT:
        return Side(image, array, False, inverse_norms, nothing)
    norms = np.sqrt(squared_norms(array[None], image, patches)[0])
    factors = np.divide(largest, norms, out=np.zeros_like(norms), where=norms > 0)
    return Side(image, array, False, factors, np.zeros_like(factors))


def fit_basis(key: Side, keys: NDArray[Any], patches: Patches) -> Basis:
    """Find m and the directions of B from a sample of the key patches at the given positions."""
    fewest, most = KEY_SAMPLES
    rows = _sample(key, keys, patches, min(max(keys.size // 4, fewest), most))
    mean = (rows.sum(0, dtype=np.float64) / max(1, len(rows))).astype(np.float32)
    rows = rows - mean
    directions, explained = _principal_components(rows)
    return Basis(mean, directions, explained, _longest(rows, directions))


def fit_projection(basis: Basis, query: Side, queries: NDArray[Any], patches: Patches) -> Projection:
    """Scale B so that the numbers of the keys' sample, and of one of the query patches, are within bounds."""
    rows = _sample(query, queries, patches, QUERY_SAMPLES) - basis.mean
    longest = max(basis.longest, _longest(rows, basis.directions))
    elements = patches.slices * patches.rows * patches.length
    # Twice the longest of the samples; longer ones are shortened to it. A power of two, so that small integers
    # stay exact.
    scale = 2.0 ** floor(log2(MAX_NORM / (2 * longest))) if longest > 0 else 1.0
    scaled = basis.directions * np.float32(scale)
    columns, vectors = aligned_columns(scaled[:elements])
    extra, offset = (np.zeros(vectors * VECTOR, np.float32) for _ in range(2))
    num_components = scaled.shape[1]
    offset[:num_components] = multiply(basis.mean[None], scaled)[0]
    extra[:num_components] = scaled[elements:].sum(0)  # the one line there is, or none
    return Projection(columns, vectors, extra, offset, num_components, scale)


def _longest(rows: NDArray[np.float32], directions: NDArray[np.float32]) -> float:
    if not len(rows):
        return 0.0
    projected = multiply(rows, directions)
    return float(np.sqrt((projected * projected).sum(1)).max())


def _sample(side: Side, positions: NDArray[Any], patches: Patches, most: int) -> NDArray[np.float32]:
    """Patches at up to `most` of the positions, as rows in single precision; those with NaN or infinity stay out."""
    if positions.size > most:
        # Multiples of the golden ratio: spread evenly, and in step with no texture.
        turns = np.arange(most, dtype=np.uint64) * np.uint64(HASH_MULTIPLIER) & np.uint64(0xFFFFFFFF)
        positions = positions[(turns * np.uint64(positions.size) >> np.uint64(32)).astype(np.int64)]
    elements = patches.slices * patches.rows * patches.length
    rows = np.empty((positions.size, elements + (side.extra.size > 0)), side.array.dtype)
    unfold(positions.astype(np.int64), side.array, side.factors, patches, side.is_key, rows)
    if side.extra.size:
        rows[:, -1] = side.extra[positions]
    sample = rows.astype(np.float32)
    return sample[np.isfinite(sample).all(1)]


def _principal_components(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """The principal components `(elements, components)`, and the share of the variance they hold.

    Short patches are kept whole. Of longer ones by subspace iteration: an eigen-decomposition of all their elements
    would take seconds where there are thousands.
    """
    elements = rows.shape[1]
    total = float(np.einsum("ij,ij->", rows, rows, dtype=np.float64))
    if elements <= MAX_COMPONENTS or total == 0:
        return np.eye(elements, min(elements, MAX_COMPONENTS), dtype=np.float32), 1.0
    basis = np.random.default_rng(0).standard_normal((elements, COLUMNS)).astype(np.float32)
    for _ in range(POWER_ITERATIONS):
        basis = _orthonormal(multiply(rows.T, multiply(rows, basis)))
    products = multiply(rows, basis)
    # NumPy's solver would wake threads that go on spinning beside the search: 20 ms of a processor.
    squares = torch.from_numpy(multiply(products.T, products)).double()
    variances, turn = (part.numpy() for part in torch.linalg.eigh(squares))
    held = variances[::-1].cumsum()[:MAX_COMPONENTS] / total
    wanted = max(int((held < VARIANCE_TARGET).sum()) + 1, MIN_COMPONENTS)
    num_components = min(-(-wanted // COMPONENTS_PER_GROUP) * COMPONENTS_PER_GROUP, MAX_COMPONENTS)
    return multiply(basis, turn[:, ::-1][:, :num_components]), float(held[num_components - 1])


def _orthonormal(columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gram and Schmidt's columns: whatever depends on those before, up to rounding, becomes 0."""
    lines = np.ascontiguousarray(columns.T, dtype=np.float64)
    _orthonormalize(lines)
    return np.ascontiguousarray(lines.T, dtype=np.float32)


@kernel(vectorize=True)
def _orthonormalize(lines: Any) -> None:
    for i in range(lines.shape[0]):
        before = np.float64(0)
        for n in range(lines.shape[1]):
            before += lines[i, n] * lines[i, n]
        for _ in range(2):  # the second time removes what rounding left
            for j in range(i):
                product = np.float64(0)
                for n in range(lines.shape[1]):
                    product += lines[i, n] * lines[j, n]
                for n in range(lines.shape[1]):
                    lines[i, n] -= product * lines[j, n]
        after = np.float64(0)
        for n in range(lines.shape[1]):
            after += lines[i, n] * lines[i, n]
        factor = 1 / np.sqrt(after) if after > 1e-12 * before else 0.0
        for n in range(lines.shape[1]):
            lines[i, n] *= factor


class Source(NamedTuple):
    """A `Side` as the kernel reads it."""

    image: NDArray[Any]
    is_key: bool
    factors: NDArray[Any]
    extra: NDArray[Any]


def project(side: Side, projection: Projection, patches: Patches, low: int, high: int) -> NDArray[np.int16]:
    """The components of the patches at the flat positions from low to high: flat, `projection.width` for each."""
    source = Source(side.array, side.is_key, side.factors, side.extra)
    output = np.empty((high - low) * projection.width, np.int16)

    def scratch() -> tuple[NDArray[Any], ...]:
        shorts = np.empty(COLUMNS, np.int16)
        return np.empty(BLOCK * COLUMNS, np.float32), shorts, shorts.view(np.int64)

    run_ranges(
        _project_range, high - low, chunk_of(high - low), low, source, patches, projection,
        projection.width // COMPONENTS_PER_GROUP, output.view(np.int64), scratch=scratch,
    )  # fmt: skip
    return output


@kernel()
def _project_range(
    low: int, high: int, first: int, source: Any, patches: Any, projection: Any, groups: int, output: Any, block: Any,
    shorts: Any, groups_of_shorts: Any,
) -> None:  # fmt: skip
    """Multiply by B, scale down what exceeds MAX_NORM, and round; four 16-bit integers are one of the output."""
    p = patches
    image, factors, extra = source.image, source.factors, source.extra
    columns, vectors = projection.columns, projection.vectors
    height, width, slice_step, row_step = p.q_h, p.q_w, p.q_slice, p.q_row
    if source.is_key:
        height, width, slice_step, row_step = p.k_h, p.k_w, p.k_slice, p.k_row
    n = low
    while n < high:
        i = first + n
        count = min(BLOCK, high - n, width - i % width)
        start = offset_of(i, height, width, slice_step, row_step, p.channels)
        steps = BlockSteps(p.channels, count, p.slices, slice_step, p.rows, row_step, p.length, 1)
        block_product(image, start, steps, columns, vectors, block)
        for m in range(count):
            factor, more = np.float32(1), np.float32(0)
            if factors.size > 0:
                factor = np.float32(factors[i + m])
            if extra.size > 0:
                more = np.float32(extra[i + m])
            quantize(
                block,
                m * vectors * VECTOR,
                vectors,
                factor,
                projection.offset,
                more,
                projection.extra,
                np.float32(MAX_NORM),
                shorts,
            )
            for group in range(groups):
                output[(n + m) * groups + group] = groups_of_shorts[group]
        n += count
