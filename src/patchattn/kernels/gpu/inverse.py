"""A field turned round: for every key, the matches that point to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, flatten
from patchattn.kernels.gpu.tiles import place_in_box

__all__ = ["WALKING_WARPS", "Box", "Inverse", "count_steps", "entry_of", "invert", "key_of", "next_step", "start_walk"]

WALKING_WARPS = 2
"""The positions of a program wait for the one with most matches: they are few."""
LARGEST_INT32 = 2**31 - 1


class Inverse(NamedTuple):
    """Entries `first[j]` to `first[j + 1]` of a table's row of `match` are the matches to its key j, ascending.

    They count the matches of all items that share the table, slot after slot of item after item.
    """

    first: Any
    """`(tables, keys + 1)`."""
    match: Any
    """`(tables, entries)`."""
    tables: Any
    keys: Any
    entries: Any
    of_item: Any
    """Matches of one item: slots times queries."""
    queries: Any
    SHARED: Any
    """Whether a table belongs to several items."""


class Box(NamedTuple):
    """A box of keys for each position of a block."""

    corner: Extent
    """May lie outside the grid, as may the rest."""
    extent: Extent
    """Size of the grid."""
    T: Any
    Y: Any
    X: Any


class Walk(NamedTuple):
    """State of each position of a block on its way through the matches to the keys of its box."""

    number: Any
    """Number of the key in the box, in row-major order."""
    at: Any
    """The match, a place in `match`."""
    left: Any
    """Matches to the key, from this one on."""


class Entries(NamedTuple):
    """One match for each position of a block."""

    item: Any
    query: Any
    place: Any
    """Position of the match in `(items, k, queries)`."""


def invert(index: Tensor, keys: int, tables: int) -> Inverse:
    """Sort the matches `(items, k, queries)` by key: stably, so that gradients are always summed in one order.

    A table whose number is the item's, modulo the number of tables, is what the item's matches point into.
    """
    items, k, queries = index.shape
    sharers = items // max(1, tables)
    entries = sharers * k * queries
    flat = index.view(sharers, tables, k * queries).transpose(0, 1).reshape(tables, entries)
    ascending, match = torch.sort(flat, dim=1, stable=True)
    small = entries <= LARGEST_INT32
    wanted = torch.arange(keys + 1, dtype=index.dtype, device=index.device).expand(tables, -1).contiguous()
    first = torch.searchsorted(ascending, wanted, out_int32=small)
    match = match.int() if small else match
    return Inverse(first, match, tables, keys, entries, k * queries, queries, tl.constexpr(sharers > 1))


@triton.jit
def key_of(box, number):
    """The key of that number in each box; -1 outside the grid."""
    place = place_in_box(number, box.Y, box.X)
    corner = box.corner
    return flatten(Extent(corner.t + place.t, corner.y + place.y, corner.x + place.x), box.extent)


@triton.jit
def _segment(inverse, table, key, exists):
    """Begin of the matches to each key in `match`, and their number; none for key -1."""
    exists = exists & (key >= 0)
    at = inverse.first + table.to(tl.int64) * (inverse.keys + 1) + key
    first = tl.load(at, mask=exists, other=0)
    return first, tl.load(at + 1, mask=exists, other=0) - first


@triton.jit
def count_steps(inverse, table, box, exists):
    """Steps through the matches to the keys of the box with most: one for each, and one for a key without any."""
    steps = tl.zeros([exists.shape[0]], inverse.first.dtype.element_ty)
    for number in range(box.T * box.Y * box.X):
        steps += tl.maximum(_segment(inverse, table, key_of(box, number), exists)[1], 1)
    return tl.max(steps, 0)


@triton.jit
def start_walk(inverse, exists):
    nowhere = tl.zeros([exists.shape[0]], inverse.first.dtype.element_ty)
    return Walk(tl.full([exists.shape[0]], -1, tl.int32), nowhere, nowhere)


@triton.jit
def next_step(inverse, table, box, exists, walk):
    """Go to the next match, or to the next key of the box if there is none.

    Each walks on its own: keys with many matches hold up only those that have them in their box.
    """
    through = walk.left <= 1
    number = tl.where(through, walk.number + 1, walk.number)
    first, length = _segment(inverse, table, key_of(box, number), exists & through & (number < box.T * box.Y * box.X))
    at = tl.where(through, first, walk.at + 1)
    return Walk(number, at, tl.where(through, length, walk.left - 1))


@triton.jit
def entry_of(inverse, table, walk):
    """The match that each walk is at; there is none where `left` is 0."""
    entry = tl.load(inverse.match + table.to(tl.int64) * inverse.entries + walk.at, mask=walk.left > 0, other=0)
    item = table
    if inverse.SHARED:
        item = table + (entry // inverse.of_item).to(tl.int32) * inverse.tables
        entry = entry % inverse.of_item
    place = item.to(tl.int64) * inverse.of_item + entry
    return Entries(item, (entry % inverse.queries).to(tl.int32), place)
