"""Keys of guided search, prepared: their principal components, and the tree of their projected patches."""

from __future__ import annotations

from typing import Any

from patchattn.kernels.cpu.aligned import aligned_array
from patchattn.kernels.cpu.frame import Frame, frame_of
from patchattn.kernels.cpu.items import Item
from patchattn.kernels.cpu.projection import Projection, Side, fit_basis, key_side, project
from patchattn.kernels.cpu.tree import Tree, build_tree

__all__ = ["PreparedKeys"]


class PreparedKeys:
    """The keys of one item, as every search of them needs them, whatever the queries are.

    But for one thing: components are scaled by a power of two that the longest query may lower, so there is a tree for
    each scale that was asked for. The keys themselves are not held: each search brings them along.
    """

    def __init__(self, item: Item) -> None:
        p = item.patches
        side, self.largest = key_side(item.keys, item.pairs.key, item.pairs.k_norms, p)
        self._extra = side.extra.copy()  # a view would hold the image
        self.basis = fit_basis(side, item.masks.candidates[0], p)
        self.frame: Frame = frame_of((p.k_t, p.k_h, p.k_w), item.limits.dims)
        self._trees: dict[float, Tree] = {}

    def tree(self, projection: Projection, item: Item) -> Tree:
        """The tree of an item's keys, which are those that were prepared, under a projection fitted to them."""
        if projection.scale not in self._trees:
            p, pairs = item.patches, item.pairs
            factors = pairs.key[:0] if self._extra.size else pairs.k_norms
            side = Side(item.keys, pairs.key, True, factors, self._extra)
            rows = project(side, projection, p, 0, p.k_t * p.k_h * p.k_w)
            self._trees[projection.scale] = build_tree(rows, projection.width, item.masks.candidates[0], self.frame)
        return self._trees[projection.scale]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for scale, tree in self._trees.items():
            table = aligned_array(tree.table.size, tree.table.dtype)
            table[:] = tree.table  # a pickle's arrays begin anywhere
            self._trees[scale] = tree._replace(table=table)
