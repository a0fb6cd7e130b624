"""The cosine as a product of dot products and norms, made of operators that can be differentiated again and again."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from patchattn.ops.similarity_operators import similarity_operator
from patchattn.ops.weighted_sum import weighted_sum

__all__ = ["cosine_at"]


def cosine_at(
    query: Tensor,
    key: Tensor,
    index: Tensor,
    patch_size: Sequence[int],
    padding_mode: str,
    num_heads: int,
    backend: str,
) -> Tensor:
    """The same as `similarity_operator` for the cosine."""
    settings = (patch_size, padding_mode, num_heads, "dot", backend)
    product = similarity_operator(query, key, index, *settings)
    exists = product > -torch.inf
    query_factor = _inverse_norms(query, num_heads, settings)
    key_factor = _inverse_norms(key, num_heads, settings)
    # Read at the matches: a sum of one value with weight 1.
    place = index.flatten(2).unsqueeze(2)
    one = torch.ones_like(place, dtype=product.dtype)
    factor = weighted_sum(one, place, key_factor, backend).view(index.shape)
    cosine = torch.where(exists, product, 0) * query_factor.unsqueeze(2) * factor
    return torch.where(exists, cosine, -torch.inf)


def _inverse_norms(image: Tensor, num_heads: int, settings: Any) -> Tensor:
    """1 / norm of the patch about every position, 0 if it is 0 or no number: `(B, heads, *spatial)`."""
    size = tuple(image.shape[2:])
    itself = torch.arange(prod(size), dtype=torch.int32, device=image.device).view(size)
    squares = similarity_operator(image, image, itself.expand(image.shape[0], num_heads, 1, *size), *settings).squeeze(
        2
    )
    some = (squares > 0) & squares.isfinite()
    return torch.where(some, torch.where(some, squares, 1).rsqrt(), 0)
