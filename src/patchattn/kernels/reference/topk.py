"""The lists of best matches that a search improves, and the rule by which they accept a candidate."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.kernels.reference.constraints import admissible, conflicting
from patchattn.kernels.reference.patch_similarity import PatchPairs
from patchattn.problem import Constraints

__all__ = ["TopK"]


class TopK:
    """For each query, at most k admissible matches without conflicts, best first.

    Args:
        pairs: The patches that are compared.
        k: Length of a list.
        constraints: Which keys a query may match.
        taken: Keys that conflict as if they were matches, but stay whatever comes: int64 `(B, heads, any number,
            queries)`, -1 for none.
    """

    def __init__(self, pairs: PatchPairs, k: int, constraints: Constraints, taken: Tensor | None = None) -> None:
        self.pairs = pairs
        self.constraints = constraints
        self.taken = taken
        queries = pairs.queries
        shape = (pairs.batch, pairs.geometry.num_heads, k, len(queries))
        self.index = torch.full(shape, -1, dtype=torch.int64, device=queries.device)
        """`(B, heads, k, queries)`; empty slots, at the end, hold -1."""
        self.similarity = torch.full(shape, -torch.inf, dtype=pairs.dtype, device=queries.device)

    @property
    def full(self) -> Tensor:
        """Mask of the lists that hold k matches: bool `(B, heads, queries)`."""
        return self.index[:, :, -1] >= 0

    def offer(self, candidate: Tensor) -> None:
        """Offer one key to each query: int64 `(B or 1, heads, queries)`, -1 for none.

        It is refused if inadmissible, if already listed, if not comparable (NaN or -inf), or if a match at least as
        good, or a key that is taken, conflicts with it. Otherwise it replaces the matches that it conflicts with, or
        else the last one if that is worse; it goes behind its equals.
        """
        pairs, constraints = self.pairs, self.constraints
        batch, heads, _, count = self.index.shape
        candidate = candidate.unsqueeze(2).expand(batch, heads, 1, count)
        allowed = admissible(pairs.queries, candidate, pairs.query_shape, pairs.key_shape, constraints)
        candidate = torch.where(allowed & ~self.conflicts_with_taken(candidate), candidate, -1)
        similarity = pairs.at(pairs.queries, candidate)

        conflict = (self.index >= 0) & conflicting(self.index, candidate, pairs.key_shape, constraints)
        refused = (self.index == candidate) | (conflict & (self.similarity >= similarity))
        similarity = torch.where(refused.any(2, keepdim=True), -torch.inf, similarity)
        kept = torch.where(conflict & (similarity > -torch.inf), -torch.inf, self.similarity)

        # Stable: what is refused or removed (-inf) goes last, and the candidate behind entries as good as it is.
        merged, order = torch.sort(torch.cat([kept, similarity], 2), dim=2, descending=True, stable=True)
        k = self.index.shape[2]
        self.similarity = merged[:, :, :k]
        index = torch.cat([self.index, candidate], 2).gather(2, order[:, :, :k])
        self.index = torch.where(self.similarity > -torch.inf, index, -1)

    def conflicts_with_taken(self, candidate: Tensor) -> Tensor:
        """Say which candidates, `(B, heads, 1, queries)`, conflict with a key that is taken."""
        if self.taken is None:
            return torch.zeros_like(candidate, dtype=torch.bool)
        conflict = conflicting(self.taken, candidate, self.pairs.key_shape, self.constraints)
        return ((self.taken >= 0) & conflict).any(2, keepdim=True)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return int32 index and similarity, `(B, heads, k, *query_spatial)`."""
        shape = self.pairs.query_shape
        return torch.unflatten(self.index.int(), 3, shape), torch.unflatten(self.similarity.contiguous(), 3, shape)
