"""Cross-scale attention to the best matches alone (section 4.6 of PSAL)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from patchattn.attention.blocks import fold_blocks, unfold_blocks
from patchattn.attention.cross_scale import check_cross_scale, cosine_of_patches
from patchattn.attention.gradients import without_elements
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.precision import promote
from patchattn.backends import KernelBackend
from patchattn.checks import check_count
from patchattn.field import MatchField
from patchattn.matching.define import resolve_backend
from patchattn.matching.match import find_field
from patchattn.ops.attend import attend
from patchattn.ops.autocast import without_autocast
from patchattn.ops.methods import check_method
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.transforms import differentiates
from patchattn.problem import Constraints, Problem, Strategy
from patchattn.search_methods import SearchMethod
from patchattn.settings import Backend, Method

__all__ = ["CrossScalePatchAttention", "cross_scale_patch_attention"]

EXACT_PAIRS, SCANS = 2**31, 8
"""Up to so many pairs `"auto"` compares all; beyond, it scans so often. Queries and keys learned with full attention
alone, as published ones, lie apart, where searches that go by nearness miss more than among features of one kind:
docs/superresolution_network.md."""


def cross_scale_patch_attention(
    query: Float[Tensor, "batch channels height width"],
    key: Float[Tensor, "key_batch channels key_height key_width"],
    value: Float[Tensor, "value_batch value_channels value_height value_width"],
    *,
    k: int = 8,
    patch_size: int = 3,
    scale: float = 10.0,
    divisor: float = 6.0,
    method: Method | SearchMethod = "auto",
    iterations: int | None = None,
    seed: int = 0,
    backend: Backend | KernelBackend | None = None,
) -> Float[Tensor, "batch value_channels out_height out_width"]:
    r"""Attend from every query patch to its k best key patches, and paste the r times larger patches of value.

    $$O = \frac{1}{d} \sum_i \operatorname{paste}_i \Big( \sum_{j \in \psi(i)} A_{ij} \tilde V_j \Big), \qquad
    A_{ij} = \operatorname{softmax}_{j \in \psi(i)}\!\Big( \lambda\, \frac{Q_i \cdot K_j}{\lVert K_j \rVert} \Big)$$

    `cross_scale_attention` with PSAL in the place of full attention, as in Table 7 of PSAL: psi(i) are the k keys with
    the largest cosine, which are those with the largest score of that layer, for a query's norm is the same for all of
    its keys. With as many matches as there are keys, found exactly, both are the same. Memory is linear in the pixels,
    and so is time, nearly, where the search is not exact.

    The p² patches that overlap in a block of output are votes: query i' brings the block of value beside its match that
    lies as the output beside i'. They are not weighed against each other by similarity, as equation (10) does, but
    summed, as the trained layer has it.

    Args:
        query, key, value, patch_size, scale, divisor: see `cross_scale_attention`.
        k: matches of each query; where there are fewer keys, all of them. With weights trained with full
            attention alone, 8 are nearest to it for what they cost; those that come with the package hardly ask.
        method: of the search, see `match`; `"auto"` is exact up to 2^31 pairs (300x300 pixels enlarged twice),
            and beyond guided, with 8 scans.
        iterations, seed, backend: see `match`.

    Returns:
        `(B, Cv, r height, r width)` in the dtype of value.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import cross_scale_patch_attention
        >>> features = torch.rand(1, 8, 24, 32)
        >>> smaller = torch.nn.functional.avg_pool2d(features, 2)
        >>> cross_scale_patch_attention(features, smaller, features).shape
        torch.Size([1, 8, 48, 64])
    """
    query, key, value = promote(query, key, value)
    ratio, patch_size, scale, divisor = check_cross_scale(query, key, value, patch_size, scale, divisor)
    k = min(check_count("k", k, 1), max(1, prod(key.shape[2:])))
    name, iterations = check_method(method, iterations)
    scans, exact_pairs = (SCANS, EXACT_PAIRS) if name == "auto" and iterations is None else (iterations, None)
    chosen, geometry = resolve_backend(backend, query), cosine_of_patches(patch_size)
    strategy = Strategy(name, iterations, scans, exact_pairs, check_count("seed", seed, 0))
    field = find_field(query, key, Problem(k, geometry, Constraints(min_separation=(0, 0)), strategy, chosen))
    if query.numel() == 0:
        size = (ratio * n for n in query.shape[2:])
        return without_elements((query.shape[0], value.shape[1], *size), query, key, value)
    cosine = field.similarity
    # One match alone has weight 1 whatever its similarity: nothing to differentiate.
    if k > 1 and differentiates(query, key):
        cosine = similarity_at(query, key, field.index, geometry, chosen)
    compute = cosine.dtype
    with without_autocast(query.device):
        # Votes are weighed by the softmax over all of them: of logarithms of weights, these weights are left.
        found = field.index >= 0
        norms = _norms(query.to(compute).nan_to_num(0, 0, 0), patch_size)[:, None]
        # Finite without a match, for infinity times a gradient of 0 is NaN.
        score = (scale * norms * torch.where(found, cosine, 0)).masked_fill(~found, torch.finfo(compute).min)
        votes = score.log_softmax(2).masked_fill(~found, -torch.inf)
        index, blocks = _bordered(field, unfold_blocks(value, ratio), patch_size // 2)
        mean = attend(votes, index, blocks, (patch_size, patch_size), 1.0, chosen)
        pasted = mean.to(compute) * (_voters(query, patch_size).to(votes) / divisor)
    return fold_blocks(pasted, ratio).to(value.dtype)


def _norms(image: Tensor, patch_size: int) -> Tensor:
    """The norm of every patch, zero outside: `(B, 1, height, width)`."""
    squares = image.square().sum(1, keepdim=True)
    total = functional.avg_pool2d(squares, patch_size, 1, patch_size // 2, divisor_override=1)
    # The root of 0 has no gradient.
    return total.clamp(min=torch.finfo(total.dtype).tiny).sqrt()


def _bordered(field: MatchField, blocks: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Value's blocks with zeros around, and the field in them: no vote leaves the image then."""
    width = field.key_shape[1]
    row, column = field.index.div(width, rounding_mode="floor"), field.index.remainder(width)
    index = (row + reach) * (width + 2 * reach) + column + reach
    return torch.where(field.index < 0, -1, index), functional.pad(blocks, (reach,) * 4)


def _voters(query: Tensor, patch_size: int) -> Tensor:
    """Number of queries in the window about each: `(height, width)`."""
    reach = patch_size // 2
    rows, columns = (
        (position + reach).clamp(max=n - 1) - (position - reach).clamp(min=0) + 1
        for n, position in ((n, torch.arange(n, device=query.device)) for n in query.shape[2:])
    )
    return rows[:, None] * columns


@dataclass(kw_only=True, eq=False, repr=False)
class CrossScalePatchAttention(AttentionLayer):
    """`cross_scale_patch_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import CrossScalePatchAttention
        >>> features = torch.rand(1, 8, 24, 24)
        >>> CrossScalePatchAttention(k=5)(features, features[..., ::3, ::3], features).shape
        torch.Size([1, 8, 72, 72])
    """

    function = staticmethod(cross_scale_patch_attention)
    shown = ("k", "patch_size", "scale", "divisor", "method")

    k: int = 8
    patch_size: int = 3
    scale: float = 10.0
    divisor: float = 6.0
    method: Method | SearchMethod = "auto"
    iterations: int | None = None
    seed: int = 0
    backend: Backend | KernelBackend | None = None
