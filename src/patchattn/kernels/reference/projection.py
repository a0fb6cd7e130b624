"""Patches as a few integers, so that their squared distances rank keys as the similarity does.

    l2, l1    p(x) = B^T (x - m)
    cosine    p(x) = B^T (x / |x| - m)
    dot       p(k) = B^T ([k, sqrt(M^2 - |k|^2)] - m),  p(q) = B^T ([M q / |q|, 0] - m),  M = max |k|

Before B the right-hand sides keep the ranking exactly (that of dot products because all keys then have norm M); for l1
and for a user's own similarity it is l2's that stands in. m is the mean of a sample of key patches, B its principal
components, or nothing but a scale where patches are small.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2, sqrt

import torch
from torch import Tensor

from patchattn.kernels.parameters import (
    COMPONENTS_PER_GROUP,
    HASH_MULTIPLIER,
    KEY_SAMPLES,
    MAX_COMPONENTS,
    MAX_NORM,
    MIN_COMPONENTS,
    OVERSAMPLING,
    POWER_ITERATIONS,
    QUERY_SAMPLES,
    VARIANCE_TARGET,
)
from patchattn.kernels.reference.padded_image import PaddedImage
from patchattn.kernels.reference.patch_similarity import PatchPairs, squared_norms
from patchattn.kernels.reference.positions import all_positions

__all__ = ["Projection", "Side", "fit_projection", "project", "sides_of"]


@dataclass(frozen=True)
class Side:
    """The query or the key of one item (batch 1, one head), and what its patches are changed by before projection."""

    patches: PaddedImage
    factor: Tensor | None = None
    """The patch at a position is multiplied by this: `(positions,)`."""
    extra: Tensor | None = None
    """One more element of the patch at a position, last: `(positions,)`."""


@dataclass(frozen=True)
class Projection:
    basis: Tensor
    """B times the scale, `(elements, components)`: elements by offset, then by channel, then the extra one."""
    mean: Tensor
    """m, `(elements,)`."""
    explained: float
    """Share of the key patches' variance that the components hold."""


def sides_of(pairs: PatchPairs) -> tuple[Side, Side]:
    """Return the sides of the query and of the key."""
    if pairs.cosine:
        query_factor, key_factor = pairs.query_inverse_norms.flatten(), pairs.key_inverse_norms.flatten()
        return Side(pairs.query, query_factor), Side(pairs.key, key_factor)
    if pairs.geometry.similarity.name not in ("dot", "scaled_dot"):
        return Side(pairs.query), Side(pairs.key)
    squares = squared_norms(pairs.key).flatten()
    largest = torch.where(squares.isfinite(), squares, 0).max().item()
    norms = squared_norms(pairs.query).flatten().sqrt()
    # Not `number / tensor`: PyTorch multiplies by the reciprocal then, which rounds twice.
    factor = torch.where(norms > 0, torch.full_like(norms, sqrt(largest)) / norms, 0)
    query = Side(pairs.query, factor, torch.zeros_like(norms))
    return query, Side(pairs.key, None, (largest - squares).clamp(min=0).sqrt())


def fit_projection(query: Side, key: Side, queries: Tensor, keys: Tensor) -> Projection:
    """Find B and m from samples of the patches at the given positions: int64 `(n,)`, at least one key."""
    fewest, most = KEY_SAMPLES
    key_rows = sample(key, keys, min(max(len(keys) // 4, fewest), most))
    query_rows = sample(query, queries, QUERY_SAMPLES)
    mean = (key_rows.double().sum(0) / max(1, len(key_rows))).float()
    key_rows, query_rows = key_rows - mean, query_rows - mean
    basis, explained = principal_components(key_rows)
    longest = max(((rows @ basis).norm(dim=1).max().item() for rows in (key_rows, query_rows) if len(rows)), default=0)
    # Twice the longest of the samples; longer ones are shortened to it. A power of two, so that small integers
    # stay exact.
    scale = 2.0 ** floor(log2(MAX_NORM / (2 * longest))) if longest > 0 else 1.0
    device = key.patches.pixels.device
    return Projection((basis * scale).to(device), mean.to(device), explained)


def sample(side: Side, positions: Tensor, most: int) -> Tensor:
    """Return patches at up to `most` of the positions, float32 rows on the CPU; those with NaN or infinity are left
    out.
    """
    if len(positions) > most:
        # Multiples of the golden ratio: spread evenly, and in step with no texture.
        turns = (torch.arange(most, device=positions.device) * HASH_MULTIPLIER) & 0xFFFFFFFF
        positions = positions[(turns * len(positions)) >> 32]
    rows = torch.cat([element[0, 0] for element in side.patches.elements(positions[None, None])]).T
    if side.factor is not None:
        rows = rows * side.factor[positions, None]
    if side.extra is not None:
        rows = torch.cat([rows, side.extra[positions, None]], 1)
    rows = rows.float().cpu().contiguous()
    return rows[rows.isfinite().all(1)]


def principal_components(rows: Tensor) -> tuple[Tensor, float]:
    """Return the principal components `(elements, components)`, and the share of the variance that they hold.

    Short patches are kept whole. Of longer ones by subspace iteration, on the CPU whatever the device: the start is
    random, and the same everywhere. In float64, rounded at the end: products are summed in an order that depends on
    the number of threads, and no result may.
    """
    elements, rows = rows.shape[1], rows.double()
    total = rows.square().sum().item()
    if elements <= MAX_COMPONENTS or total == 0:
        return torch.eye(elements)[:, :MAX_COMPONENTS], 1.0
    followed = min(MAX_COMPONENTS + OVERSAMPLING, elements)
    basis = torch.randn(elements, followed, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(rows.T @ (rows @ basis)).Q
    products = rows @ basis
    variances, turn = torch.linalg.eigh(products.T @ products)
    held = variances.flip(0).cumsum(0)[:MAX_COMPONENTS] / total
    wanted = max(int((held < VARIANCE_TARGET).sum()) + 1, MIN_COMPONENTS)
    num_components = min(-(-wanted // COMPONENTS_PER_GROUP) * COMPONENTS_PER_GROUP, MAX_COMPONENTS)
    return (basis @ turn.flip(1)[:, :num_components]).float(), held[num_components - 1].item()


def project(side: Side, projection: Projection) -> Tensor:
    """Return the components of all patches: int64 `(positions, components)`; 0 where one would be NaN or infinite.

    What is longer than MAX_NORM is shortened to it.
    """
    patches, basis = side.patches, projection.basis
    everywhere = all_positions(patches.shape, patches.pixels.device)[None, None]
    elements = basis[: len(basis) - (side.extra is not None)]
    row = torch.zeros((), device=basis.device)
    for element, weight in zip(
        patches.elements(everywhere), torch.split(elements, patches.pixels.shape[2]), strict=True
    ):
        row = row + element[0, 0].float().T @ weight
    if side.factor is not None:
        row = row * side.factor.float()[:, None]
    row = row - projection.mean @ basis
    if side.extra is not None:
        row = row + side.extra.float()[:, None] * basis[-1]
    square = row.square().sum(1, keepdim=True)
    longest = torch.full_like(square, MAX_NORM)
    row = torch.where(square > MAX_NORM**2, row * (longest / square.sqrt()), row)
    return torch.where(square < torch.inf, row.round(), 0).long()
