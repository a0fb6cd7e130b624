"""Full attention over patches: the exact layer that the others approximate."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from patchattn.attention.images import Images, as_products, check_images
from patchattn.attention.layer import AttentionLayer
from patchattn.checks import per_dimension
from patchattn.matching.constraints import Causality

__all__ = ["FullAttention", "full_attention"]


def full_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *key"],
    *,
    patch_size: int | Sequence[int] = 7,
    similarity: str = "l2",
    temperature: float = 1.0,
    num_heads: int = 1,
    key_stride: int | Sequence[int] = 1,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    is_causal: Causality = False,
    padding_mode: str = "reflect",
) -> Tensor:
    r"""Attend from every query patch to every key patch.

    $$O = \operatorname{softmax}(S / \tau)\, V, \qquad S_{ij} = s(Q_i, K_j)$$

    Equation (1) of PSAL (its Q, K, V are our unfolded patches of query and key, and the pixels of value), computed by
    PyTorch's `scaled_dot_product_attention`. Squared distances become products by one more element,
    $-\lVert q - k \rVert^2 = (2q, 1) \cdot (k, -\lVert k \rVert^2) - \lVert q \rVert^2$ (the last term drops out of the
    softmax), and the cosine by normalising. Memory grows with the patches (n p^D C) and, where PyTorch has no fused
    kernel for the case, with n^2; time with n^2 p^D C.

    Args:
        query, key, value, patch_size, temperature, num_heads, query_mask, key_mask, is_causal, padding_mode: see
            `patch_attention`; value has the key's size.
        similarity: `"l2"`, `"dot"`, `"scaled_dot"` or `"cosine"`.
        key_stride: look at every so-many-th key only, from 0, in each dimension (section 4.2 of PSAL).

    Returns:
        `(B, Cv, *query)` in the dtype of value; 0 where a query has no key.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.

    Example:
        >>> import torch
        >>> from patchattn import full_attention
        >>> features = torch.rand(1, 4, 12, 12)
        >>> full_attention(features, features, features, patch_size=3).shape
        torch.Size([1, 4, 12, 12])
    """
    images = check_images(
        query, key, value, patch_size=patch_size, num_heads=num_heads, query_mask=query_mask, key_mask=key_mask,
        padding_mode=padding_mode, is_causal=is_causal, similarity=similarity, temperature=temperature,
    )  # fmt: skip
    stride = per_dimension("key_stride", key_stride, len(images.key_size), 1)
    q, k, v = images.unfolded(stride)
    q, k, scale = as_products(q, k, similarity, images.centre())
    allowed = _allowed(images, stride)
    batch = images.query.shape[0]
    out = functional.scaled_dot_product_attention(
        q, k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1), attn_mask=allowed, scale=scale / temperature
    )
    if allowed is not None:
        # Without any key the softmax is undefined; the layers' convention is 0.
        out = torch.where(allowed.any(-1, keepdim=True), out, torch.zeros((), dtype=out.dtype, device=out.device))
    return images.finished(out.movedim(-1, 2))


def _allowed(images: Images, stride: tuple[int, ...]) -> Tensor | None:
    """Bool `(B or 1, 1, queries or 1, keys)`, or None where everything is allowed."""
    keep = tuple(slice(None, None, s) for s in stride)
    allowed = None
    if images.key_mask is not None:
        allowed = images.key_mask[(slice(None), *keep)].flatten(1)[:, None, None, :]
    if images.is_causal:
        device = images.query.device
        position = torch.arange(prod(images.key_size), device=device).view(images.key_size)[keep].flatten()
        query = torch.arange(prod(images.query_size), device=device)
        before = position[None, None, None, :] + int(images.strict) <= query[None, None, :, None]
        allowed = before if allowed is None else allowed & before
    return allowed


class FullAttention(AttentionLayer):
    """`full_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import FullAttention
        >>> features = torch.rand(1, 4, 12, 12)
        >>> FullAttention(patch_size=3, key_stride=2)(features, features, features).shape
        torch.Size([1, 4, 12, 12])
    """

    function = staticmethod(full_attention)
    shown = ("patch_size", "similarity", "temperature", "num_heads", "key_stride")

    def __init__(
        self,
        *,
        patch_size: int | Sequence[int] = 7,
        similarity: str = "l2",
        temperature: float = 1.0,
        num_heads: int = 1,
        key_stride: int | Sequence[int] = 1,
        is_causal: Causality = False,
        padding_mode: str = "reflect",
    ) -> None:
        super().__init__(
            patch_size=patch_size, similarity=similarity, temperature=temperature, num_heads=num_heads,
            key_stride=key_stride, is_causal=is_causal, padding_mode=padding_mode,
        )  # fmt: skip
