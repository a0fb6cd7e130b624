"""Contextual attention (Yu et al. 2018): fills a hole with patches of its surroundings."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from patchattn.attention.images import Images
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.memory import free_memory
from patchattn.attention.precision import promote
from patchattn.attention.whole import as_operator
from patchattn.checks import check_choice, check_count, check_features, check_mask, check_pair, check_positive
from patchattn.matching.constraints import check_patch_size
from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import resolve_similarity

__all__ = ["ContextualAttention", "contextual_attention", "contextual_memory"]

Norm = Literal["floor", "added"]
EPSILON = 1e-4
COPIES = 3
"""Matrices of the scores' size that exist side by side while they are fused and become weights."""

Size = tuple[int, int]


def contextual_attention(
    query: Float[Tensor, "batch channels query_height query_width"],
    key: Float[Tensor, "key_batch channels height width"],
    value: Float[Tensor, "value_batch value_channels height width"],
    *,
    patch_size: int = 3,
    rate: int = 2,
    scale: float = 10.0,
    fuse: bool = True,
    norm: Norm = "floor",
    memory_limit: int | None = None,
    key_mask: Bool[Tensor, "mask_batch height width"] | None = None,
) -> Tensor:
    r"""Attend from every query patch to every key patch at a fraction of the size, and paste patches of full size.

    $$O = \tfrac{1}{4} \sum_i \operatorname{paste}_i \Big( \sum_j A_{ij} \tilde V_j \Big), \qquad
    A_{ij} = m_j \frac{\exp(\lambda\, m_j S_{ij})}{\sum_{j'} \exp(\lambda\, m_{j'} S_{ij'})}, \qquad
    S = F\!\left( Q_i \cdot \frac{K_j}{\max(\lVert K_j \rVert, 10^{-4})} \right)$$

    The layer of Generative Image Inpainting with Contextual Attention (section 4.1 there; its foreground is our query,
    its background key and value). Q_i and K_j are patches of `patch_size` pixels, zero outside, of images of which
    every `rate`-th pixel is left in each dimension; the patches V of value are 2 `rate` pixels wide and lie `rate`
    pixels apart, so that each output pixel is the mean of four. lambda is `scale`. m_j is 0 where the patch K_j touches
    a position at which `key_mask` is False, else 1: such a score becomes 0, as in the published programs, so its key
    takes part in the softmax's denominator, and nothing else.

    Only keys are normalized there: a query's norm sharpens its softmax. F fuses scores, so that whole regions are
    copied from whole regions: each becomes the sum of itself and of those of the pixels one to the left and right, for
    query and key at once, and then the same upwards and downwards. Positions are counted row by row (then column by
    column), so that the end of one row is beside the beginning of the next.

    The matrix of scores has (n / rate²)² entries for n pixels, and gradients keep it: this layer cannot be had in
    memory linear in the pixels. It computes what it needs first, and refuses what does not fit;
    `masked_patch_attention` can take its place.

    Args:
        query: `(B, C, height, width)`; float16, bfloat16, float32 or float64. Sums are taken in float32 at least.
        key: `(B or 1, C, *key)`, of any size.
        value: `(B or 1, Cv, *key)`.
        patch_size: of the patches that are compared; odd.
        rate: how much smaller the images are compared.
        scale: what scores are multiplied by in the softmax.
        fuse: whether scores are fused.
        norm: what keys are divided by: `"floor"` is the formula's, `"added"` is the root of the sum of k² + 1e-4,
            with which the public PyTorch checkpoints were trained.
        memory_limit: the bytes that may be taken; None: what the device has free, where the system tells. In a
            compiled or exported graph it is checked whenever that runs.
        key_mask: bool `(B or 1, *key)`: False where nothing may be copied from.

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where every key is masked.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the scores would take more than `memory_limit`; the message says how much.

    Example:
        >>> import torch
        >>> from patchattn import contextual_attention
        >>> features = torch.rand(1, 8, 32, 24)
        >>> known = torch.ones(1, 32, 24, dtype=torch.bool)
        >>> known[:, 10:18, 8:16] = False
        >>> contextual_attention(features, features, features, key_mask=known).shape
        torch.Size([1, 8, 32, 24])
    """
    query, key, value = promote(query, key, value)
    patch_size, rate, scale = _check(query, key, value, patch_size, rate, scale, norm, key_mask)
    if memory_limit is not None:
        memory_limit = check_count("memory_limit", memory_limit, 1)
    geometry = PatchGeometry((patch_size, patch_size), "zeros", 1, resolve_similarity("cosine"))
    images = Images(query, key, value, Constraints(key_mask=key_mask), geometry)
    return _attend(images, rate, scale, fuse, norm, memory_limit)


def contextual_memory(
    query_size: Size, key_size: Size, *, rate: int = 2, batch: int = 1, dtype: torch.dtype = torch.float32
) -> int:
    """Return the bytes that `contextual_attention` needs for its scores, whatever the channels.

    Args:
        query_size, key_size: (height, width) of query and key.
        rate: how much smaller they are compared; 1 is full attention without that saving.
        batch: how many at once.
        dtype: what is computed in.

    Example:
        >>> f"{contextual_memory((675, 825), (675, 825)) / 1e9:.0f} GB"
        '234 GB'
    """
    entries = batch * prod(-(-n // rate) for n in (*query_size, *key_size))
    return COPIES * entries * dtype.itemsize


def _check(
    query: Tensor, key: Tensor, value: Tensor, patch_size: int, rate: int, scale: float, norm: str,
    key_mask: Tensor | None,
) -> tuple[int, int, float]:  # fmt: skip
    """Check all, and return patch_size, rate and scale as Python numbers."""
    check_pair(query, key, 1)
    check_features("value", value, query, "query")
    if query.dim() != 4:
        raise ValueError(f"query: expected two spatial dimensions, got shape {tuple(query.shape)}.")
    if value.shape[2:] != key.shape[2:]:
        raise ValueError(f"value: expected the key's spatial size {_size(key)}, got {_size(value)}.")
    patch_size = check_count("patch_size", patch_size, 1)
    check_patch_size(patch_size, "zeros", _size(query), _size(key))
    check_choice("norm", norm, get_args(Norm))
    check_mask("key_mask", key_mask, "key", key, query.shape[0])
    return patch_size, check_count("rate", rate, 1), check_positive("scale", scale)


def _check_memory(query: Tensor, key: Tensor, rate: int, limit: int | None) -> None:
    if limit is not None:
        check_count("memory_limit", limit, 1)
    else:
        limit = free_memory(query.device)
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    needed = contextual_memory(_size(query), _size(key), rate=rate, batch=query.shape[0], dtype=dtype)
    if limit is not None and needed > limit:
        raise RuntimeError(
            f"contextual_attention: from {_size(query)} to {_size(key)} positions at rate {rate}, the scores of "
            f"{query.shape[0]} item(s) need {needed:,} bytes; the limit is {limit:,} bytes. Use smaller images or "
            "MaskedPatchAttention, whose memory is linear in the pixels."
        )


@as_operator("contextual_attention")
def _attend(images: Images, rate: int, scale: float, fuse: bool, norm: str, memory_limit: int | None) -> Tensor:
    _check_memory(images.query, images.key, rate, memory_limit)
    query, key, value = (image.to(images.compute) for image in (images.query, images.key, images.value))
    patch_size, key_mask = images.patch[0], images.key_mask
    small_query, small_key = (image[..., ::rate, ::rate] for image in (query, key))
    query_size, key_size = _size(small_query), _size(small_key)
    q, k = (functional.unfold(image, patch_size, padding=patch_size // 2) for image in (small_query, small_key))
    # Everything up to the softmax is linear, so that the scale may come first, where the numbers are few.
    scores = (_normalized(k, norm) * scale).transpose(1, 2) @ q  # (B, keys, queries)
    if fuse:
        for key_grid, query_grid in ((key_size, query_size), (key_size[::-1], query_size[::-1])):
            scores = _turned(_Summed.apply(scores), key_grid, query_grid)  # type: ignore[no-untyped-call]
    patches = functional.unfold(_bordered(value, key_size, rate), 2 * rate, stride=rate)
    if key_mask is not None:
        touched = _touched(key_mask[:, ::rate, ::rate], patch_size)
        scores = scores.masked_fill(touched, 0)
        patches = patches.masked_fill(touched.transpose(1, 2), 0)  # instead of their weights
    weights = scores.softmax(1)
    del scores
    pasted = _paste(patches @ weights, query_size, rate)
    height, width = _size(query)
    first = rate // 2
    return (pasted[..., first : first + height, first : first + width] / 4).to(images.value.dtype)


def _size(image: Tensor) -> Size:
    return image.shape[2], image.shape[3]


def _normalized(patches: Tensor, norm: str) -> Tensor:
    squares = patches.square()
    if norm == "added":
        return patches / (squares + EPSILON).sum(1, keepdim=True).sqrt()
    # The root of the larger, not the larger of the roots: a root has no gradient at 0.
    return patches / squares.sum(1, keepdim=True).clamp(min=EPSILON**2).sqrt()


class _Summed(torch.autograd.Function):
    """Each score with those before and after it, in keys and queries at once.

    Autograd would copy the matrix once for each sum; but the gradients are sums of the same neighbors.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor) -> Tensor:
        summed = scores.clone()
        summed[:, 1:, 1:] += scores[:, :-1, :-1]
        summed[:, :-1, :-1] += scores[:, 1:, 1:]
        return summed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        """Nothing is kept: the sums are linear."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed: Tensor = _Summed.apply(*gradients)  # type: ignore[no-untyped-call]
        return summed

    jvp = backward


def _turned(scores: Tensor, key_grid: Size, query_grid: Size) -> Tensor:
    """Scores counted along the other dimension of the grids."""
    parts = scores.view(-1, *key_grid, *query_grid)
    return parts.permute(0, 2, 1, 4, 3).reshape(scores.shape)


def _touched(key_mask: Tensor, patch_size: int) -> Tensor:
    """Bool `(B or 1, keys, 1)`: the patches that contain a masked position."""
    masked = (~key_mask).float().unsqueeze(1)
    return functional.max_pool2d(masked, patch_size, 1, patch_size // 2).flatten(1).unsqueeze(2) > 0


def _bordered(value: Tensor, positions: Size, rate: int) -> Tensor:
    """Value with zeros around, so that it holds `positions` patches of 2 rate pixels, rate pixels apart."""
    first = rate // 2
    (below, right) = ((n + 1) * rate - extent - first for n, extent in zip(positions, value.shape[2:], strict=True))
    return functional.pad(value, (first, right, first, below))


def _paste(patches: Tensor, positions: Size, rate: int) -> Tensor:
    """The sum of patches of 2 rate pixels that lie rate pixels apart."""
    height, width = ((n + 1) * rate for n in positions)
    return functional.fold(patches, (height, width), 2 * rate, stride=rate)


@dataclass(kw_only=True, eq=False, repr=False)
class ContextualAttention(AttentionLayer):
    """`contextual_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import ContextualAttention
        >>> features = torch.rand(1, 8, 16, 16)
        >>> ContextualAttention()(features, features, features).shape
        torch.Size([1, 8, 16, 16])
    """

    function = staticmethod(contextual_attention)
    shown = ("patch_size", "rate", "scale", "fuse", "norm")

    patch_size: int = 3
    rate: int = 2
    scale: float = 10.0
    fuse: bool = True
    norm: Norm = "floor"
    memory_limit: int | None = None

    def check_memory(self, query: Tensor, key: Tensor) -> None:
        """Refuse what a call with such tensors would, for its memory; looks at shape, type and device alone."""
        _check_memory(query, key, self.settings["rate"], self.settings["memory_limit"])
