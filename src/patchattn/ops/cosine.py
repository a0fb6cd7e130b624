"""The cosine as a product of dot products and norms, made of operators that can be differentiated again and again."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from patchattn.ops.similarity_operators import similarity_operator
from patchattn.ops.weighted_sum import weighted_sum
from patchattn.problem import PatchGeometry
from patchattn.similarity import resolve_similarity

__all__ = ["cosine_at"]


def cosine_at(query: Tensor, key: Tensor, index: Tensor, geometry: PatchGeometry, backend: str) -> Tensor:
    """The same as `similarity_operator` for the cosine."""
    products = geometry.compared_by(resolve_similarity("dot"))
    product = similarity_operator(query, key, index, products, backend)
    exists = product > -torch.inf
    query_factor = _inverse_norms(query, products, backend)
    key_factor = _inverse_norms(key, products, backend)
    # Read at the matches: a sum of one value with weight 1.
    place = index.flatten(2).unsqueeze(2)
    one = torch.ones_like(place, dtype=product.dtype)
    factor = weighted_sum(one, place, key_factor, backend).view(index.shape)
    cosine = torch.where(exists, product, 0) * query_factor.unsqueeze(2) * factor
    return torch.where(exists, cosine, -torch.inf)


def _inverse_norms(image: Tensor, products: PatchGeometry, backend: str) -> Tensor:
    """1 / norm of the patch about every position, 0 if it is 0 or no number: `(B, heads, *spatial)`."""
    size = tuple(image.shape[2:])
    itself = torch.arange(prod(size), dtype=torch.int32, device=image.device).view(size)
    itself = itself.expand(image.shape[0], products.num_heads, 1, *size)
    squares = similarity_operator(image, image, itself, products, backend).squeeze(2)
    some = (squares > 0) & squares.isfinite()
    return torch.where(some, torch.where(some, squares, 1).rsqrt(), 0)
