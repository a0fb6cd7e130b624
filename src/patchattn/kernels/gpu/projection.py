"""Patches as a few integers, so that their squared distances rank keys as the similarity does.

What is projected, and onto what, is as in `kernels/reference/projection.py`. All items are fitted at once, on the
device and with fixed shapes: how many components are kept, and whether they are a guide at all, are tensors on the
device too, so that nothing waits for the host.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, block_of_queries, blocks_of
from patchattn.kernels.gpu.launch import INTERPRETED, launch
from patchattn.kernels.gpu.patch_similarity import Pairs, offset_in_patch, patch_start, squared_norms
from patchattn.kernels.parameters import (
    COMPONENTS_PER_GROUP,
    HASH_MULTIPLIER,
    KEY_SAMPLES,
    MAX_COMPONENTS,
    MAX_NORM,
    MIN_COMPONENTS,
    OVERSAMPLING,
    QUERY_SAMPLES,
    VARIANCE_TARGET,
)

__all__ = ["Basis", "Fit", "Positions", "Side", "fit_basis", "fit_projection", "project", "sides_to_project"]

ITERATIONS = 6
"""Steps of orthogonal iteration, which turns a random basis into the principal components, the largest first. (The
other backends take 3 and solve for the eigenvectors of what is left: a solver would wait for the host.)"""


class Side(NamedTuple):
    """The query or the key, and what its patches are changed by before projection."""

    table: Any
    size: Extent
    items: Any
    factor: Any
    """`(items, positions)`: the patch at a position is multiplied by this; or None."""
    extra: Any
    """`(items, positions)`: one more element of the patch at a position, last; or None."""


class Basis(NamedTuple):
    """Principal components of the key patches of every item, not scaled."""

    directions: Tensor
    """Float32 `(items, elements, MAX_COMPONENTS)`."""
    mean: Tensor
    """`(items, elements)`."""
    num_components: Tensor
    explained: Tensor
    longest: Tensor
    """Norm of the longest projected patch of the sample: `(items,)`."""


class Fit(NamedTuple):
    """The projection of every item."""

    basis: Tensor
    """Float32 `(items, offsets of the patch, PIXEL, MAX_COMPONENTS)`, times the scale; 0 where there is no channel."""
    of_extra: Tensor
    """`(items, MAX_COMPONENTS)`: the row of the basis for the extra element."""
    mean: Tensor
    """Projected: `(items, MAX_COMPONENTS)`."""
    num_components: Tensor
    """Number of components kept, a multiple of two: int32 `(items,)`."""
    explained: Tensor
    """Share of the key patches' variance that they hold: float64 `(items,)`."""
    scale: Tensor
    """The factor of the basis, a power of two: float64 `(items,)`."""


def sides_to_project(pairs: Pairs, items: int, query_size: Extent, dtype: torch.dtype) -> tuple[Side, Side]:
    """The sides of the query and of the key."""
    name = pairs.SIMILARITY.value
    query = Side(pairs.query, query_size, items, None, None)
    key = Side(pairs.key, pairs.key_size, items, None, None)
    if name == "cosine":
        return query._replace(factor=pairs.query_norms), key._replace(factor=pairs.key_norms)
    if name not in ("dot", "scaled_dot"):
        return query, key
    squares = squared_norms(pairs, pairs.key, pairs.key_size, dtype)
    largest = torch.where(squares.isfinite(), squares, 0).amax(1, keepdim=True)
    norms = squared_norms(pairs, pairs.query, query_size, dtype).sqrt()
    of_item = largest.double().sqrt().to(dtype).repeat(items // len(largest), 1)
    factor = torch.where(norms > 0, of_item / norms, 0)
    return query._replace(factor=factor, extra=torch.zeros_like(factor)), key._replace(
        extra=(largest - squares).clamp(min=0).sqrt()
    )


def fit_basis(pairs: Pairs, key: Side, keys: Positions) -> Basis:
    """Find basis and mean from a sample of the key patches at the given positions."""
    rows, valid = _sample(pairs, key, keys, *KEY_SAMPLES)
    mean = (rows.double().sum(1) / valid.sum(1, keepdim=True).clamp(min=1)).float()
    rows = torch.where(valid.unsqueeze(2), rows - mean.unsqueeze(1), 0)
    directions, num_components, explained = _principal_components(rows)
    return Basis(directions, mean, num_components, explained, _longest(rows, directions))


def fit_projection(pairs: Pairs, basis: Basis, query: Side, queries: Positions) -> Fit:
    """Scale the basis so that the numbers of the keys' sample, and of one of the query patches, are within bounds."""
    rows, valid = _sample(pairs, query, queries, QUERY_SAMPLES, QUERY_SAMPLES)
    rows = torch.where(valid.unsqueeze(2), rows - basis.mean.unsqueeze(1), 0)
    longest = torch.maximum(basis.longest, _longest(rows, basis.directions))
    # Twice the longest of the samples; longer ones are shortened to it. A power of two, so that small integers
    # stay exact.
    ratio = torch.where(longest > 0, MAX_NORM / (2 * longest.double()), 1)
    scale = torch.ldexp(torch.ones_like(ratio), torch.frexp(ratio).exponent - 1)
    scaled = basis.directions * scale.float()[:, None, None]
    offsets, channels = pairs.T.value * pairs.Y.value * pairs.X.value, pairs.key.CHANNELS.value
    table = scaled.new_zeros((len(scaled), offsets, pairs.key.PIXEL.value, MAX_COMPONENTS))
    table[:, :, :channels] = scaled[:, : offsets * channels].unflatten(1, (offsets, channels))
    mean = (basis.mean.unsqueeze(1) @ scaled).squeeze(1)
    return Fit(table, scaled[:, -1].contiguous(), mean, basis.num_components, basis.explained, scale)


def _longest(rows: Tensor, directions: Tensor) -> Tensor:
    return (rows @ directions).norm(dim=2).amax(1)


class Positions(NamedTuple):
    """Positions that a mask allows, for each item: the first `count` of `order`."""

    order: Tensor
    """int64 `(items, n)`, ascending, the others behind."""
    count: Tensor
    """int64 `(items,)`."""


def _sample(pairs: Pairs, side: Side, positions: Positions, fewest: int, most: int) -> tuple[Tensor, Tensor]:
    """Patches at a fourth of the positions, though not fewer than `fewest` if there are so many, nor more than `most`:
    float32 `(items, rows, elements)`, and which rows are any good: as many as that, and without NaN or infinity.
    """
    count, available = positions.count.unsqueeze(1), positions.order.shape[1]
    wanted = (count // 4).clamp(fewest, most)
    row = torch.arange(min(max(available // 4, fewest), most, available), device=positions.order.device)
    # Multiples of the golden ratio: spread evenly, and in step with no texture.
    turns = ((row * HASH_MULTIPLIER) & 0xFFFFFFFF) * count >> 32
    number = torch.where(count > wanted, turns, row)
    place = positions.order.gather(1, number.clamp(max=available - 1))
    table, padded = side.table, side.table.size
    of_item = torch.arange(side.items, device=place.device) % table.items
    start = _in_padded(place, side.size, padded)
    steps = [torch.arange(int(extent.value), device=place.device) for extent in (pairs.T, pairs.Y, pairs.X)]
    offset = ((steps[0][:, None, None] * padded.y + steps[1][:, None]) * padded.x + steps[2]).flatten()
    pixels = table.pixels.flatten(1, 3)[of_item[:, None, None], start.unsqueeze(2) + offset]
    dtype = torch.float64 if pairs.COMPUTE.value == tl.float64 else torch.float32
    rows = pixels[..., : table.CHANNELS.value].to(dtype).flatten(2)
    if side.factor is not None:
        rows = rows * side.factor[of_item].gather(1, place).unsqueeze(2)
    if side.extra is not None:
        rows = torch.cat([rows, side.extra[of_item].gather(1, place).unsqueeze(2)], 2)
    rows = rows.float()
    valid = (row < torch.minimum(count, wanted)) & rows.isfinite().all(2)
    return torch.where(valid.unsqueeze(2), rows, 0), valid


def _in_padded(position: Tensor, size: Extent, padded: Extent) -> Tensor:
    """Index at which the patch about a position begins among the pixels of the padded image."""
    line, x = position // size.x, position % size.x
    return (line // size.y * padded.y + line % size.y) * padded.x + x


def _principal_components(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The principal components `(items, elements, MAX_COMPONENTS)`, how many are kept, and the share of the variance
    that those hold. Short patches are kept whole.
    """
    items, _, elements = rows.shape
    eye = torch.eye(elements, MAX_COMPONENTS, device=rows.device).expand(items, -1, -1)
    everything = torch.ones(items, dtype=torch.float64, device=rows.device)
    if elements <= MAX_COMPONENTS:
        kept = elements + elements % 2
        return eye, torch.full((items,), kept, dtype=torch.int32, device=rows.device), everything
    total = rows.double().square().sum((1, 2))
    width = min(MAX_COMPONENTS + OVERSAMPLING, elements)
    basis = _random((elements, width), rows.device).expand(items, -1, -1)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(rows.transpose(1, 2) @ (rows @ basis)).Q
    variances = (rows @ basis).double().square().sum(1)
    order = torch.sort(variances, dim=1, descending=True, stable=True).indices[:, :MAX_COMPONENTS]
    basis = basis.gather(2, order.unsqueeze(1).expand(-1, elements, -1))
    held = variances.gather(1, order).cumsum(1) / total.unsqueeze(1)
    wanted = ((held < VARIANCE_TARGET).sum(1) + 1).clamp(min=MIN_COMPONENTS)
    num_components = (-(-wanted // COMPONENTS_PER_GROUP) * COMPONENTS_PER_GROUP).clamp(max=MAX_COMPONENTS)
    explained = held.gather(1, num_components.unsqueeze(1) - 1).squeeze(1)
    constant = total == 0
    basis = torch.where(constant[:, None, None], eye, basis)
    # What is not kept is 0 everywhere, and adds nothing to a distance.
    basis = torch.where(torch.arange(MAX_COMPONENTS, device=rows.device) < num_components[:, None, None], basis, 0)
    return basis, num_components.int(), torch.where(constant, everything, explained)


def _random(shape: tuple[int, int], device: torch.device) -> Tensor:
    """Numbers between -1 and 1 that are the same on every device."""
    count = torch.arange(prod(shape), device=device)
    mixed = (count * 0x9E3779B1 ^ (count * 0x7FEB352D >> 13)) & 0xFFFFFF
    return (mixed.float() * 2**-23 - 1).view(shape)


def project(pairs: Pairs, side: Side, fit: Fit) -> Tensor:
    """The components of all patches: int16 `(items, positions, MAX_COMPONENTS)`; 0 where one would be NaN or infinite.

    What is longer than MAX_NORM is shortened to it.
    """
    blocks = blocks_of(side.size, side.items, 64, spanning=False)
    components = torch.empty((side.items, prod(side.size), MAX_COMPONENTS), dtype=torch.int16, device=fit.basis.device)
    elements = pairs.X.value * pairs.key.PIXEL.value
    at_once = triton.next_power_of_2(max(16, elements if INTERPRETED else min(elements, 32)))
    launch(
        _project_kernel, blocks.grid, components.device,
        pairs, blocks, side, fit.basis, fit.of_extra, fit.mean, components, tl.constexpr(at_once),
        tl.constexpr(MAX_COMPONENTS),
    )  # fmt: skip
    return components


@triton.jit
def _project_kernel(
    pairs, blocks, side, basis, of_extra, mean, components, ELEMENTS: tl.constexpr, COMPONENTS: tl.constexpr
):
    queries = block_of_queries(blocks)
    item = queries.item
    table = side.table
    start = table.pixels + patch_start(table, item, queries)
    element = tl.arange(0, ELEMENTS)
    number = tl.arange(0, COMPONENTS)
    width = pairs.X * table.PIXEL
    row_of_basis = basis + item.to(tl.int64) * (pairs.T * pairs.Y * width * COMPONENTS)
    found = tl.zeros([queries.flat.shape[0], COMPONENTS], tl.float32)
    for row in range(pairs.T * pairs.Y):
        for first in range(0, width, ELEMENTS):
            column = first + element
            there = column < width
            offset = offset_in_patch(table, pairs, row, column)
            x = tl.load(start[:, None] + offset[None, :], mask=queries.exists[:, None] & there[None, :], other=0)
            place = (row * width + column) * COMPONENTS
            weight = tl.load(row_of_basis + place[:, None] + number[None, :], mask=there[:, None], other=0)
            found = tl.dot(x.to(tl.float32), weight, found, input_precision="ieee")
    count = side.size.t * side.size.y * side.size.x
    of_table = (item % table.items).to(tl.int64) * count + queries.flat
    if side.factor is not None:
        found = found * tl.load(side.factor + of_table, mask=queries.exists, other=0).to(tl.float32)[:, None]
    found = found - tl.load(mean + item * COMPONENTS + number)[None, :]
    if side.extra is not None:
        extra = tl.load(side.extra + of_table, mask=queries.exists, other=0).to(tl.float32)
        found = found + extra[:, None] * tl.load(of_extra + item * COMPONENTS + number)[None, :]
    square = tl.sum(found * found, 1)
    shorter = tl.div_rn(tl.full(square.shape, 11500.0, tl.float32), tl.sqrt_rn(square))
    found = tl.where((square > 11500.0 * 11500.0)[:, None], found * shorter[:, None], found)
    # Adding 1.5 * 2^23 rounds to integers, halves to even ones.
    rounded = (found + 12582912.0) - 12582912.0
    rounded = tl.where((square < float("inf"))[:, None], rounded, 0)
    place = (item.to(tl.int64) * count + queries.flat) * COMPONENTS
    tl.store(components + place[:, None] + number[None, :], rounded.to(tl.int16), mask=queries.exists[:, None])
