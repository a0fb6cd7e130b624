"""Cross-scale attention: patches of an image attend to those of a smaller copy, and paste the larger originals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from patchattn.attention.blocks import fold_blocks, unfold_blocks, value_ratio
from patchattn.attention.images import Images
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.lost import marked, without_nan
from patchattn.attention.precision import promote
from patchattn.attention.tiles import join, partial, recomputed
from patchattn.attention.whole import as_operator
from patchattn.checks import check_count, check_features, check_pair, check_positive
from patchattn.matching.constraints import check_patch_size
from patchattn.problem import Constraints, PatchGeometry
from patchattn.similarity import resolve_similarity

__all__ = ["CrossScaleAttention", "check_cross_scale", "cosine_of_patches", "cross_scale_attention"]

QUERIES, KEYS = 512, 2**12
"""Queries and keys in one block: few enough scores for the cache, enough of them for matrix products."""
MIN_NORM = 1e-4
"""Smallest norm that a key is divided by."""


def cross_scale_attention(
    query: Float[Tensor, "batch channels height width"],
    key: Float[Tensor, "key_batch channels key_height key_width"],
    value: Float[Tensor, "value_batch value_channels value_height value_width"],
    *,
    patch_size: int = 3,
    scale: float = 10.0,
    divisor: float = 6.0,
) -> Float[Tensor, "batch value_channels out_height out_width"]:
    r"""Attend from every query patch to every key patch, and paste the r times larger patches of value.

    $$O = \frac{1}{d} \sum_i \operatorname{paste}_i \Big( \sum_j A_{ij} \tilde V_j \Big), \qquad
    A_{ij} = \operatorname{softmax}_j\!\Big( \lambda\, \frac{Q_i \cdot K_j}{\max(\lVert K_j \rVert, 10^{-4})} \Big)$$

    The cross-scale non-local attention of Mei et al. (2020, section 3.3; section 4.6 of PSAL), to which query and value
    are features of an image, and key those of the image made r times smaller. Q_i and K_j are patches of p =
    `patch_size` positions, zero outside, V_j the patch of r p pixels of value at the same place as K_j, zero outside.
    Pasted patches lie r pixels apart, so that p² of them overlap; their sum is divided by d = `divisor`, 6 in the
    published programs. lambda is `scale`.

    Queries go in parts through groups of keys, whose softmaxes are joined, and everything is computed again for the
    gradient: memory is linear in the pixels, while the published layer's matrix has n² / r² entries. Time still grows
    with n²: `cross_scale_patch_attention` can take its place.

    Args:
        query: `(B, C, height, width)`; float16, bfloat16, float32 or float64. Sums are taken in float32 at least.
        key: `(B or 1, C, *key)`, of any size.
        value: `(B or 1, Cv, *(r key))` with r a whole number.
        patch_size: of the patches that are compared; odd.
        scale: what scores are multiplied by in the softmax.
        divisor: of the sum of overlapping patches.

    Returns:
        `(B, Cv, r height, r width)` in the dtype of value.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn import cross_scale_attention
        >>> features = torch.rand(1, 8, 24, 32)
        >>> smaller = torch.nn.functional.avg_pool2d(features, 2)
        >>> cross_scale_attention(features, smaller, features).shape
        torch.Size([1, 8, 48, 64])
    """
    query, key, value = promote(query, key, value)
    ratio, patch_size, scale, divisor = check_cross_scale(query, key, value, patch_size, scale, divisor)
    images = Images(query, key, unfold_blocks(value, ratio), Constraints(), cosine_of_patches(patch_size))
    return fold_blocks(_attend(images, scale, divisor), ratio)


@as_operator("cross_scale_attention")
def _attend(images: Images, scale: float, divisor: float) -> Tensor:
    """Blocks of the output as channels, like the value's."""
    patch_size = images.patch[0]
    keys, blocks = (_patches(image.to(images.compute), patch_size) for image in (images.key, images.value))
    keys, lost = without_nan(keys, infinite=True)
    keys = keys / keys.square().sum(2, keepdim=True).clamp(min=MIN_NORM**2).sqrt()
    blocks = blocks.masked_fill(lost.isnan(), 0)
    pasted = _paste_bands(images.query.to(images.compute), keys, lost, blocks, patch_size, scale)
    return (pasted / divisor).to(images.value.dtype)


def _patches(image: Tensor, patch_size: int) -> Tensor:
    """All patches, zero outside: `(B, positions, elements)`."""
    return functional.unfold(image, patch_size, padding=patch_size // 2).transpose(1, 2)


def _paste_bands(query: Tensor, keys: Tensor, lost: Tensor, blocks: Tensor, patch_size: int, scale: float) -> Tensor:
    """The sum of what all queries paste, blocks as channels: `(B, Cv r², height, width)`."""
    batch, _, height, width = query.shape
    reach, rows = patch_size // 2, max(1, QUERIES // width)
    bordered = functional.pad(query, (reach, reach, reach, reach))
    channels = blocks.shape[2] // patch_size**2
    pasted: Tensor | None = None
    for top in range(0, height, rows):
        end = min(top + rows, height) + 2 * reach
        band = functional.unfold(bordered[:, :, top:end], patch_size).transpose(1, 2)
        patches = recomputed(_attend_band, band, keys, lost, blocks, scale).transpose(1, 2)
        added = functional.fold(patches, (end - top, width), patch_size, padding=(0, reach))
        if pasted is None:
            # Of what it will hold: under vmap, too, whichever of the images has the mapped dimension.
            pasted = added.new_zeros(batch, channels, height + 2 * reach, width)
        pasted[:, :, top:end] += added
    assert pasted is not None  # there is at least one row
    return pasted[:, :, reach : reach + height]


def _attend_band(queries: Tensor, keys: Tensor, lost: Tensor, blocks: Tensor, scale: float) -> Tensor:
    """The mean patch of value for each query: `(B, queries, elements)`; `lost` is NaN for keys that count for none."""
    queries, unknown = without_nan(queries, infinite=False)
    queries, keys = marked(queries, keys, unknown, lost)
    groups = zip(torch.split(keys, KEYS, 1), torch.split(blocks, KEYS, 1), strict=True)
    return join([partial(queries, k, v, scale, None) for k, v in groups])


def cosine_of_patches(patch_size: int) -> PatchGeometry:
    """The similarity of cross-scale layers, but for the norm of the query."""
    return PatchGeometry((patch_size, patch_size), "zeros", 1, resolve_similarity("cosine"))


def check_cross_scale(
    query: Tensor, key: Tensor, value: Tensor, patch_size: int, scale: float, divisor: float
) -> tuple[int, int, float, float]:
    """Check the arguments that cross-scale layers share; return how much larger value is than key, and the settings."""
    check_pair(query, key, 1)
    check_features("value", value, query, "query")
    if query.dim() != 4:
        raise ValueError(f"query: expected two spatial dimensions, got shape {tuple(query.shape)}.")
    patch_size = check_count("patch_size", patch_size, 1)
    check_patch_size(patch_size, "zeros", tuple(query.shape[2:]), tuple(key.shape[2:]))
    return value_ratio(key, value), patch_size, check_positive("scale", scale), check_positive("divisor", divisor)


@dataclass(kw_only=True, eq=False, repr=False)
class CrossScaleAttention(AttentionLayer):
    """`cross_scale_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import CrossScaleAttention
        >>> features = torch.rand(1, 8, 24, 24)
        >>> CrossScaleAttention()(features, features[..., ::3, ::3], features).shape
        torch.Size([1, 8, 72, 72])
    """

    function = staticmethod(cross_scale_attention)
    shown = ("patch_size", "scale", "divisor")

    patch_size: int = 3
    scale: float = 10.0
    divisor: float = 6.0
