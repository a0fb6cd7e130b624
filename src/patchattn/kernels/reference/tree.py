"""A balanced k-d tree over projected keys, with leaves of eight.

Leaves are numbered from left to right, and each boundary between two of them is a node: node b sends to its left what
belongs in leaves before b. A range of leaves `[low, high)` is parted at its middle one, so that going down the tree is
a binary search for the leaf, along another of the components at every step.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from patchattn.kernels.parameters import HASH_MULTIPLIER, LEAF_SIZE, SPLIT_SAMPLE, VARIANCE_SHIFT

__all__ = ["Tree", "build_tree", "leaf_for"]


class Tree(NamedTuple):
    axes: Tensor
    """Component that a node compares: int64 `(leaves,)`."""
    bounds: Tensor
    """Bound of a node, what is less goes to the left: int64 `(leaves,)`."""
    members: Tensor
    """The keys of a leaf by position: int64 `(leaves, LEAF_SIZE)`, -1 after the last."""
    leaf_of: Tensor
    """The leaf that holds a key: int64 `(keys,)`; -1 for keys that are in none."""


def build_tree(components: Tensor, allowed: Tensor) -> Tree:
    """Part the allowed keys, all ranges of one level at once. A range is known by its first leaf.

    Args:
        components: int64 `(keys, components)`.
        allowed: Positions of the keys that the tree holds, int64 `(n,)`, ascending, n > 0.
    """
    count, device = len(allowed), components.device
    leaves = -(-count // LEAF_SIZE)
    values = components[allowed]
    leaf, place = torch.arange(leaves, device=device), torch.arange(count, device=device)
    axes, bounds = torch.zeros_like(leaf), torch.zeros_like(leaf)
    # The range that a leaf lies in, and that of a key.
    low, high = torch.zeros_like(leaf), torch.full_like(leaf, leaves)
    part = torch.zeros_like(place)
    while bool((high - low > 1).any()):
        middle, parted = (low + high) // 2, high - low > 1
        axis = widest(values, allowed, part, leaves)
        value = values.gather(1, axis[part, None]).squeeze(1)
        # By range, value and, as the sort is stable, position: each range is put in order where it stands.
        order = torch.sort((part << 32) + value, stable=True).indices
        ordered = part[order]
        to_right = parted[ordered] & (place >= LEAF_SIZE * middle[ordered])
        part[order] = torch.where(to_right, middle[ordered], ordered)
        ranges = leaf[parted & (leaf == low)]
        nodes = middle[ranges]
        axes[nodes], bounds[nodes] = axis[ranges], value[order[LEAF_SIZE * nodes]]
        in_right = parted & (leaf >= middle)
        low, high = torch.where(in_right, middle, low), torch.where(parted & ~in_right, middle, high)
    members = torch.full((leaves * LEAF_SIZE,), -1, device=device)
    members[:count] = allowed[torch.sort(part, stable=True).indices]
    leaf_of = torch.full((len(components),), -1, device=device)
    leaf_of[allowed] = part
    return Tree(axes, bounds, members.view(leaves, LEAF_SIZE), leaf_of)


def widest(values: Tensor, keys: Tensor, part: Tensor, leaves: int) -> Tensor:
    """Return the component of largest variance of each range, among a random SPLIT_SAMPLE of its keys or all of them.

    Args:
        values: int64 `(n, components)`, of the keys at the positions `keys`.
        keys: int64 `(n,)`.
        part: The range of each key, int64 `(n,)`.
        leaves: How many ranges there may be.
    """
    size = torch.bincount(part, minlength=leaves)[part]
    lot = (((keys * HASH_MULTIPLIER) & 0xFFFFFFFF) * size) >> 32
    looked_at = (size <= SPLIT_SAMPLE) | (lot < SPLIT_SAMPLE)
    values, part = values[looked_at] >> VARIANCE_SHIFT, part[looked_at]
    count = torch.bincount(part, minlength=leaves)
    nothing = torch.zeros((leaves, values.shape[1]), dtype=torch.int64, device=values.device)
    total, squares = nothing.index_add(0, part, values), nothing.index_add(0, part, values**2)
    # count^2 times the variance, in integers; of equal ones argmax takes the first.
    return (count[:, None] * squares - total**2).argmax(1)


def leaf_for(tree: Tree, components: Tensor) -> Tensor:
    """Return the leaf that the components of each query, int64 `(n, components)`, lead to."""
    low = torch.zeros(len(components), dtype=torch.int64, device=components.device)
    high = torch.full_like(low, len(tree.axes))
    while bool((high - low > 1).any()):
        middle, undecided = (low + high) // 2, high - low > 1
        to_left = components.gather(1, tree.axes[middle, None]).squeeze(1) < tree.bounds[middle]
        low, high = torch.where(undecided & ~to_left, middle, low), torch.where(undecided & to_left, middle, high)
    return low
