"""Attention as it is defined: all patches, all pairs, and a mask of who sees whom."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.nn import functional


def patches(image: Tensor, patch: tuple[int, ...], padding: str, heads: int) -> Tensor:
    """`(B, heads, positions, elements)`, cut out one by one."""
    sides = [radius for size in reversed(patch) for radius in (size // 2, size // 2)]
    padded = functional.pad(image, sides, mode="constant" if padding == "zeros" else padding)
    size = image.shape[2:]
    places = torch.cartesian_prod(*(torch.arange(n) for n in size)).view(-1, len(size)).tolist()
    cut = []
    for place in places:
        part = padded[(..., *(slice(at, at + p) for at, p in zip(place, patch, strict=True)))]
        cut.append(part.reshape(image.shape[0], heads, -1))
    return torch.stack(cut, 2)


def similarities(q: Tensor, k: Tensor, name: str) -> Tensor:
    q, k = q.unsqueeze(-2), k.unsqueeze(-3)
    if name == "l2":
        return -((q - k) ** 2).sum(-1)
    product = (q * k).sum(-1)
    if name == "cosine":
        return product / (q.norm(dim=-1) * k.norm(dim=-1))
    return product / q.shape[-1] ** 0.5 if name == "scaled_dot" else product


def weighted(weights: Tensor, value: Tensor, size: tuple[int, ...]) -> Tensor:
    """The mean of values by weights `(B, heads, queries, keys)`, 0 where all are 0."""
    heads = weights.shape[1]
    total = weights.sum(-1, keepdim=True)
    weights = weights / torch.where(total > 0, total, 1)
    values = value.reshape(value.shape[0], heads, -1, prod(value.shape[2:])).transpose(2, 3)
    return (weights @ values).transpose(2, 3).reshape(weights.shape[0], -1, *size)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    patch: tuple[int, ...],
    similarity: str = "l2",
    temperature: float = 1.0,
    heads: int = 1,
    padding: str = "reflect",
) -> Tensor:
    """Softmax over the keys that are allowed: bool, to be broadcast to `(B, heads, queries, keys)`."""
    q, k = (patches(x, patch, padding, heads) for x in (query, key))
    scores = (similarities(q, k, similarity) / temperature).masked_fill(~allowed, -torch.inf)
    largest = scores.amax(-1, keepdim=True)
    weights = (scores - torch.where(largest == -torch.inf, 0, largest)).exp()
    return weighted(weights, value, tuple(query.shape[2:]))
