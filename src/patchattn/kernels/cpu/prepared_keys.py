"""Keys of guided search, prepared: their principal components, and the tree of their projected patches."""

from __future__ import annotations

from patchattn.kernels.cpu.frame import Frame, frame_of
from patchattn.kernels.cpu.items import Item
from patchattn.kernels.cpu.projection import Projection, fit_basis, key_side, project
from patchattn.kernels.cpu.tree import Tree, build_tree

__all__ = ["PreparedKeys"]


class PreparedKeys:
    """The keys of one item, as every search of them needs them, whatever the queries are.

    But for one thing: components are scaled by a power of two that the longest query may lower, so there is a tree for
    each scale that was asked for.
    """

    def __init__(self, item: Item) -> None:
        self._patches, self._allowed = item.patches, item.masks.candidates[0]
        self._side, self.largest = key_side(item.keys, item.pairs.key, item.pairs.k_norms, item.patches)
        self.basis = fit_basis(self._side, self._allowed, item.patches)
        p = self._patches
        self.frame: Frame = frame_of((p.k_t, p.k_h, p.k_w), item.limits.dims)
        self._trees: dict[float, Tree] = {}

    def tree(self, projection: Projection) -> Tree:
        """The tree of the keys under a projection that was fitted to them."""
        if projection.scale not in self._trees:
            p = self._patches
            rows = project(self._side, projection, p, 0, p.k_t * p.k_h * p.k_w)
            self._trees[projection.scale] = build_tree(rows, projection.width, self._allowed, self.frame)
        return self._trees[projection.scale]
