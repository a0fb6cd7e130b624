"""The similarity of query patches and key patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.kernels.reference.gather import compute_dtype, take
from patchattn.kernels.reference.padded_image import PaddedImage
from patchattn.kernels.reference.positions import all_positions
from patchattn.problem import PatchGeometry

__all__ = ["PatchPairs", "as_array", "as_tensor_like", "squared_norms"]


class PatchPairs:
    """Query patches against key patches: prepared once, compared at any pairs of positions.

    Every similarity is a sum over the elements of the patch, so that memory is linear in the number of pairs.

    Args:
        query: `(B, C, *query_spatial)`.
        key: `(B or 1, C, *key_spatial)`.
        geometry: How patches are cut and compared.
    """

    def __init__(self, query: Tensor, key: Tensor, geometry: PatchGeometry) -> None:
        self.geometry = geometry
        self.dtype = compute_dtype(query, key)
        self.batch = query.shape[0]
        self.scale = geometry.scale(query.shape[1])
        self.query, self.key = PaddedImage(query, geometry, self.dtype), PaddedImage(key, geometry, self.dtype)
        self.query_shape, self.key_shape = self.query.shape, self.key.shape
        self.queries = all_positions(self.query_shape, query.device)
        self.cosine = geometry.similarity.name == "cosine"
        if self.cosine:
            self.query_inverse_norms, self.key_inverse_norms = inverse_norms(self.query), inverse_norms(self.key)

    def at(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the similarity of each query to the keys listed for it; -inf for key -1 and instead of NaN.

        Args:
            queries: int64 `(n,)`, flat positions.
            keys: int64 `(B, heads, r, n)`, flat positions.
        """
        total = torch.zeros(keys.shape, dtype=self.dtype, device=keys.device)
        for q, k in zip(self.query.elements(queries[None, None, None]), self.key.elements(keys), strict=True):
            total += self.terms(q, k).sum(2)
        total *= self.scale
        if self.cosine:
            query_factor, key_factor = self.inverse_norms_at(queries, keys)
            total = (total * query_factor) * key_factor
        return torch.where((keys >= 0) & ~total.isnan(), total, -torch.inf)

    def terms(self, q: Tensor, k: Tensor) -> Tensor:
        """Contribution of one element of the patches: q `(B, heads, C, 1, n)` against k `(B, heads, C, r, n)`."""
        similarity = self.geometry.similarity
        if similarity.function is not None:
            with np.errstate(all="ignore"):  # infinity less itself is NaN, as in every kernel
                return as_tensor_like(similarity.function(as_array(q), as_array(k)), k)
        if similarity.name == "l2":
            return -((q - k) ** 2)
        if similarity.name == "l1":
            return -(q - k).abs()
        return q * k

    def inverse_norms_at(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inverse norms of query patches `(B, heads, 1, n)` and of key patches `(B, heads, r, n)`."""
        query_factor = take(self.query_inverse_norms, queries[None, None, None])
        return query_factor.squeeze(2), take(self.key_inverse_norms, keys).squeeze(2)


def squared_norms(patches: PaddedImage) -> Tensor:
    """Return the sum of squares of the patch about every position: `(B, heads, 1, positions)`."""
    everywhere = all_positions(patches.shape, patches.pixels.device)[None, None]
    squares = torch.zeros((), dtype=patches.pixels.dtype, device=patches.pixels.device)
    for element in patches.elements(everywhere):
        squares = squares + (element**2).sum(2, keepdim=True)
    return squares


def inverse_norms(patches: PaddedImage) -> Tensor:
    """Return 1 / norm of the patch about every position, 0 for a patch of zeros: `(B, heads, 1, positions)`."""
    squares = squared_norms(patches)
    return torch.where(squares == 0, 0, 1 / squares.sqrt())


def as_array(tensor: Tensor) -> Any:
    """Return a tensor as the NumPy array to call a user's function with: NumPy's functions do not take all tensors."""
    return tensor.cpu().numpy()


def as_tensor_like(result: Any, like: Tensor) -> Tensor:
    """Broadcast what a user's function returned, which may be a plain number, to the pairs it was given."""
    return torch.as_tensor(result, dtype=like.dtype, device=like.device).broadcast_to(like.shape)
