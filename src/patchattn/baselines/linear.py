"""Linear attention: a similarity that is a product of positive features, so that keys and values are summed up once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional
from typing_extensions import Unpack

from patchattn.attention.images import Images, cut, split_heads
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.tiles import recomputed
from patchattn.attention.whole import as_operator
from patchattn.baselines.settings import BaselineOptions, BaselineSettings, images_of
from patchattn.settings import settings_from, shows

__all__ = ["LinearAttention", "linear_attention"]


@shows(BaselineSettings)
def linear_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Unpack[BaselineOptions],
) -> Tensor:
    r"""Attend from every query patch to every key patch by a product of features (Katharopoulos et al. 2020).

    $$O_i = \frac{\phi(Q_i) \cdot \sum_j \phi(K_j) \otimes V_j}{\phi(Q_i) \cdot \sum_j \phi(K_j)}, \qquad
    \phi(x) = \operatorname{elu}(x) + 1$$

    The layer that section 4 of PSAL compares with. As phi is taken number by number, the sums over patches are sums
    over shifted images, one for each pixel of a patch: no patch is ever unfolded (the paper's 7.5 GB at 512x512 are
    such copies). Memory is linear in the pixels, time is n p^D C Cv. There is no temperature and no other similarity.

    Args:
        query, key, value, patch_size, num_heads, query_mask, key_mask, padding_mode: see `patch_attention`; value has
            the key's size.

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where a query has no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn.baselines import linear_attention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> linear_attention(features, features, features, patch_size=3).shape
        torch.Size([1, 4, 24, 24])
    """
    settings = settings_from(BaselineSettings, options, "linear_attention")
    images = images_of(query, key, value, settings, query_mask, key_mask)
    return _attend(images)


@as_operator("linear_attention")
def _attend(images: Images) -> Tensor:
    num_heads = images.num_heads
    q, k = (_features(images, image) for image in (images.query, images.key))
    v = images.value.to(images.compute)
    held = torch.ones_like(v[:, :1])
    if images.key_mask is not None:
        # A weight of 0 does not silence NaN.
        v, held = (x.masked_fill(~images.key_mask[:, None], 0) for x in (v, held))
    # One more channel of ones, for each head, sums up the weights.
    v = torch.cat([split_heads(v, num_heads), held[:, None].expand(-1, num_heads, -1, *held.shape[2:])], 2)
    shifts = list(product(*(range(size) for size in images.patch)))
    sums = [recomputed(_sum_of_keys, images, k, v, shift) for shift in shifts]
    out = torch.zeros((), dtype=images.compute, device=q.device)
    for shift, of_shift in zip(shifts, sums, strict=True):
        out = out + recomputed(_answer, images, q, of_shift, shift)
    total = out[:, :, -1:]
    some = total > 0
    return images.finished(torch.where(some, out[:, :, :-1], 0) / torch.where(some, total, 1))


def _features(images: Images, image: Tensor) -> Tensor:
    """phi of query or key; what is not finite has no gradient, for 0 times NaN would be NaN."""
    x = images.bordered(image)
    finite = x.isfinite()
    phi = torch.where(finite, functional.elu(x.masked_fill(~finite, 0)), functional.elu(x.detach())) + 1
    return split_heads(phi, images.num_heads)


def _shifted(image: Tensor, shift: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """The pixel at one place of every patch: `(B, heads, C, positions)`."""
    return cut(image, *(slice(at, at + n) for at, n in zip(shift, size, strict=True))).flatten(3)


def _sum_of_keys(images: Images, k: Tensor, v: Tensor, shift: tuple[int, ...]) -> Tensor:
    """`(B, heads, C, Cv + 1)`: what one place of the patches adds to the sums over all keys."""
    pixels = _shifted(k, shift, images.key_size)
    if images.key_mask is not None:
        pixels = pixels.masked_fill(~images.key_mask.flatten(1)[:, None, None], 0)
    return pixels @ v.flatten(3).transpose(2, 3)


def _answer(images: Images, q: Tensor, sums: Tensor, shift: tuple[int, ...]) -> Tensor:
    """`(B, heads, Cv + 1, *query)`: what one place of the patches adds to all outputs."""
    pixels = _shifted(q, shift, images.query_size)
    if images.query_mask is not None:
        pixels = pixels.masked_fill(~images.query_mask.flatten(1)[:, None, None], 0)
    return (sums.transpose(2, 3) @ pixels).view(len(pixels), images.num_heads, -1, *images.query_size)


@dataclass(kw_only=True, eq=False, repr=False)
class LinearAttention(BaselineSettings, AttentionLayer):
    """`linear_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn.baselines import LinearAttention
        >>> features = torch.rand(1, 4, 24, 24)
        >>> LinearAttention(patch_size=3)(features, features, features).shape
        torch.Size([1, 4, 24, 24])
    """

    function = staticmethod(linear_attention)
    shown = ("patch_size", "num_heads")
