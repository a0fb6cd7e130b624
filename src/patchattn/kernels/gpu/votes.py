"""The matches that vote at a query: its own, or those of its neighbors as well, shifted back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from patchattn.kernels.gpu.grid import Extent, flatten, place_of, three
from patchattn.kernels.gpu.padded_image import triton_dtype
from patchattn.kernels.gpu.tiles import lists_of, place_in_box

__all__ = ["Votes", "offset_in", "place_in_lists", "shifted_back", "vote", "votes_of"]


class Votes(NamedTuple):
    """A field, and the window of neighbors whose matches vote."""

    index: Any
    """int32 `(items, k, queries)`."""
    score: Any
    """Score of a match, the same shape, of which the softmax is taken (-inf: no vote); or its weight."""
    k: Any
    query: Extent
    key: Extent
    COMPUTE: Any
    T: Any
    """Extent of the window."""
    Y: Any
    X: Any


def votes_of(score: Tensor, index: Tensor, key_shape: tuple[int, ...], window: tuple[int, ...]) -> Votes:
    """All shapes are those of `attend`."""
    extent = (tl.constexpr(size) for size in three(tuple(window), 1))
    query, key = three(tuple(index.shape[3:]), 1), three(tuple(key_shape), 1)
    lists = lists_of(index, torch.int32), lists_of(score, score.dtype)
    return Votes(*lists, index.shape[2], query, key, triton_dtype(score.dtype), *extent)


@triton.jit
def offset_in(votes, number):
    """The offset of that number from the center of the window."""
    place = place_in_box(number, votes.Y, votes.X)
    return Extent(place.t - votes.T // 2, place.y - votes.Y // 2, place.x - votes.X // 2)


@triton.jit
def shifted_back(place, extent, by):
    """Flat positions, shifted back by an offset; -1 outside."""
    return flatten(Extent(place.t - by.t, place.y - by.y, place.x - by.x), extent)


@triton.jit
def place_in_lists(votes, item, slot, flat):
    count = votes.query.t * votes.query.y * votes.query.x
    return (item.to(tl.int64) * votes.k + slot) * count + flat


@triton.jit
def vote(votes, queries, number, slot):
    """The key that a neighbor votes for, -1 for none, and the score; -inf for none."""
    by = offset_in(votes, number)
    neighbor = flatten(Extent(queries.t + by.t, queries.y + by.y, queries.x + by.x), votes.query)
    asked = queries.exists & (neighbor >= 0)
    place = place_in_lists(votes, queries.item, slot, neighbor)
    key = tl.load(votes.index + place, mask=asked, other=-1)
    if votes.T * votes.Y * votes.X > 1:
        matched = key >= 0
        back = shifted_back(place_of(tl.where(matched, key, 0), votes.key), votes.key, by)
        key = tl.where(matched, back, -1)
    return key, tl.load(votes.score + place, mask=key >= 0, other=float("-inf"))
