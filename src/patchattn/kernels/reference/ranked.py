"""Lists of guided search: keys ranked by the squared distance of their components, offered one leaf at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.parameters import DISTANCE_SHIFT, EMPTY, LATEST_SCAN, POSITION_MASK, POSITION_SHIFT
from patchattn.kernels.reference.constraints import admissible, conflicting
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.kernels.reference.tree import Tree
from patchattn.problem import Constraints

__all__ = ["RankedLists", "position_of"]

# An entry of a list is one integer, so that comparing entries compares distances, then positions:
# squared distance (29 bits), key position (31 bits), scan in which it entered (3 bits).


def position_of(entries: Tensor) -> Tensor:
    """Return the key positions in entries; -1 for none."""
    return torch.where(entries == EMPTY, -1, (entries >> POSITION_SHIFT) & POSITION_MASK)


class RankedLists:
    """For each query of one item, the nearest of the admissible keys it was offered, without conflicts.

    Args:
        pairs: Query and key of the item (batch 1, one head).
        constraints: Which keys a query may match.
        tree: The leaves of keys.
        query_components: Projected query patches, int64 `(queries, components)`; key_components likewise.
        length: Of a list.
    """

    def __init__(
        self,
        pairs: PatchPairs,
        constraints: Constraints,
        tree: Tree,
        query_components: Tensor,
        key_components: Tensor,
        length: int,
    ) -> None:
        self.pairs, self.constraints, self.tree = pairs, constraints, tree
        self.query_components = query_components
        # A last leaf that is not full reads some key where it has none; its position -1 is not admissible.
        self.leaf_components = key_components[tree.members]
        self.entries = torch.full((len(query_components), length), EMPTY, device=query_components.device)
        """`(queries, length)`, ascending."""

    def offer(self, queries: Tensor, leaves: Tensor, scan: int) -> None:
        """Offer each of the queries, `(n,)`, all keys of some leaves, `(n, m)`, -1 for none, in this order.

        A key that is in the list already leaves it as it is. With a separation a key is refused if one that is nearer
        conflicts with it, and otherwise replaces those that it conflicts with; but what is farther than the last of a
        full list is not looked at.
        """
        leaves = without_duplicates(leaves)
        if leaves.shape[1] == 0:
            return
        if self.constraints.separated:
            self.insert_in_turn(queries, leaves, scan)
        else:
            self.merge(queries, leaves, scan)

    def merge(self, queries: Tensor, leaves: Tensor, scan: int) -> None:
        """Keep the nearest of all, whatever the order."""
        held = self.entries[queries]
        row, column = (leaves >= 0).nonzero(as_tuple=True)
        new = torch.full((*leaves.shape, self.leaf_components.shape[1]), EMPTY, device=leaves.device)
        new[row, column] = self.compared(queries[row], leaves[row, column], scan)
        merged = torch.cat([held, new.flatten(1)], 1).sort(1).values
        # One key has one distance: its entries are neighbors, the oldest first.
        known = merged[:, 1:] >> POSITION_SHIFT == merged[:, :-1] >> POSITION_SHIFT
        merged[:, 1:] = torch.where(known, EMPTY, merged[:, 1:])
        self.entries[queries] = merged.sort(1).values[:, : held.shape[1]]

    def insert_in_turn(self, queries: Tensor, leaves: Tensor, scan: int) -> None:
        """Insert key after key, as each may take the place of others."""
        held = self.entries[queries]
        for leaf in leaves.unbind(1):
            new = torch.where(leaf[:, None] >= 0, self.compared(queries, leaf.clamp(min=0), scan), EMPTY)
            farther = new >> DISTANCE_SHIFT > held[:, -1:] >> DISTANCE_SHIFT
            for entry in torch.where(farther, EMPTY, new).unsqueeze(2).unbind(1):
                if bool((entry != EMPTY).any()):
                    held = self.inserted(held, entry)
        self.entries[queries] = held

    def inserted(self, held: Tensor, entry: Tensor) -> Tensor:
        """Return the lists `(n, length)` with one more entry each, `(n, 1)`."""
        there = (held != EMPTY) & (entry != EMPTY)
        positions = position_of(held).clamp(min=0), position_of(entry).clamp(min=0)
        conflict = there & conflicting(*positions, self.pairs.key_shape, self.constraints)
        refused = (conflict & (held < entry)).any(1, keepdim=True)
        kept = torch.where(conflict & ~refused, EMPTY, held)
        return torch.cat([kept, torch.where(refused, EMPTY, entry)], 1).sort(1).values[:, : held.shape[1]]

    def compared(self, queries: Tensor, leaves: Tensor, scan: int) -> Tensor:
        """Return the entries of the keys of one leaf for each query, `(n, LEAF_SIZE)`; EMPTY: inadmissible."""
        keys = self.tree.members[leaves]
        distance = ((self.leaf_components[leaves] - self.query_components[queries].unsqueeze(1)) ** 2).sum(2)
        entries = (distance << DISTANCE_SHIFT) | (keys << POSITION_SHIFT) | min(scan, LATEST_SCAN)
        shapes = self.pairs.query_shape, self.pairs.key_shape
        allowed = admissible(queries, keys.T[None, None], *shapes, self.constraints)[0, 0].T
        return torch.where(allowed, entries, EMPTY)


def without_duplicates(leaves: Tensor) -> Tensor:
    """Keep the first of equal leaves in each row, in order, and only as many columns as this takes."""
    equal = leaves.unsqueeze(2) == leaves.unsqueeze(1)
    leaves = torch.where(equal.tril(-1).any(2), -1, leaves)
    leaves = leaves.gather(1, torch.sort((leaves < 0).int(), dim=1, stable=True).indices)
    return leaves[:, : int((leaves >= 0).sum(1).max())]
