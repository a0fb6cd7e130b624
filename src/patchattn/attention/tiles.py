"""Attention in tiles: memory does not grow with the number of pairs of queries and keys.

Queries go tile by tile, keys in groups that are joined afterwards, and everything is computed again for the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from math import log

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from patchattn.attention.images import Tile
from patchattn.ops.transforms import differentiates, transforming

__all__ = ["assemble", "join", "partial", "recomputed", "tiles_of"]


def tiles_of(size: tuple[int, ...], side: tuple[int, ...]) -> Iterator[Tile]:
    """Cut an image into tiles, in row-major order."""
    cuts = ([slice(at, min(at + s, n)) for at in range(0, n, s)] for n, s in zip(size, side, strict=True))
    return product(*cuts)


def recomputed(function: Callable[..., Tensor], *arguments: object) -> Tensor:
    """Call a function whose intermediate results are not kept, but computed again for the gradient.

    Under the transforms of torch.func, which know no such recomputation, everything is kept.
    """
    if transforming() or not differentiates(*(x for x in arguments if isinstance(x, Tensor))):
        return function(*arguments)
    found: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return found


def assemble(tiles: list[Tensor], size: tuple[int, ...], side: tuple[int, ...]) -> Tensor:
    """Put tiles `(B, C, *tile)` together again: `(B, C, *size)`."""
    for dim in reversed(range(len(size))):
        count = -(-size[dim] // side[dim])
        tiles = [torch.cat(tiles[at : at + count], dim + 2) for at in range(0, len(tiles), count)]
    return tiles[0]


def partial(q: Tensor, k: Tensor, v: Tensor, scale: float, allowed: Tensor | None) -> Tensor:
    """Attend to some of the keys: `(..., queries, Cv + 1)`, the weighted mean and the logarithm of the weights' sum;
    0 and -inf where no key is allowed.
    """
    scores = (q * scale) @ k.transpose(-1, -2)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    # NaN counts as -inf, as in every layer; what is -inf throughout has no largest score to take away.
    largest = scores.detach().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(-1, keepdim=True)
    scores = scores - largest.nan_to_num(neginf=0.0)
    # Weights far below the last digit of the largest are 0: products with denormal numbers take a hundred times longer.
    least = 0.5 * log(torch.finfo(scores.dtype).tiny)
    weights = scores.masked_fill(~(scores >= least), -torch.inf).exp()
    total = weights.sum(-1, keepdim=True)
    some = total > 0
    mean = weights @ v / torch.where(some, total, 1)
    total = torch.where(some, torch.where(some, total, 1).log() + largest, -torch.inf)
    return torch.cat([mean, total], -1)


def join(parts: list[Tensor]) -> Tensor:
    """The weighted mean over all keys from those over groups of them (`partial`): `(..., queries, Cv)`."""
    logs = torch.stack([part[..., -1] for part in parts])
    nowhere = (logs == -torch.inf).all(0)
    # -inf less itself would be NaN, forward and backward.
    shares = torch.where(nowhere, 0, logs).softmax(0)
    shares = torch.where(nowhere, 0, shares)
    return torch.stack([share[..., None] * part[..., :-1] for share, part in zip(shares, parts, strict=True)]).sum(0)
