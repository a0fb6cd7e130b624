"""Full attention over patches: the exact layer that the others approximate."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from patchattn.attention.precision import promote
from patchattn.checks import check_choice, check_features, check_heads, check_pair, check_positive, per_dimension
from patchattn.matching.constraints import (
    Causality,
    check_patch_size,
    physical_padding,
    resolve_causality,
    resolve_masks,
)

__all__ = ["FullAttention", "full_attention"]

SIMILARITIES = ("l2", "dot", "scaled_dot", "cosine")


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
    query, key, value = promote(query, key, value)
    check_pair(query, key, num_heads)
    check_features("value", value, query, "query")
    check_choice("similarity", similarity, SIMILARITIES)
    check_positive("temperature", temperature)
    check_heads("value", value, num_heads)
    query_size, key_size = tuple(query.shape[2:]), tuple(key.shape[2:])
    if tuple(value.shape[2:]) != key_size:
        raise ValueError(f"value: expected the key's spatial size {key_size}, got {tuple(value.shape[2:])}.")
    causal, strict = resolve_causality(is_causal, query_size, key_size)
    patch = check_patch_size(patch_size, padding_mode, query_size, key_size)
    stride = per_dimension("key_stride", key_stride, len(key_size), 1)
    query_mask, key_mask = resolve_masks(query, key, query_mask, key_mask, patch, padding_mode)

    keep = (slice(None),) * 2 + tuple(slice(None, None, s) for s in stride)
    compute = torch.float64 if query.dtype == torch.float64 else torch.float32
    q = _patches(query.to(compute), patch, padding_mode, num_heads).flatten(2, -2)
    kk = _patches(key.to(compute), patch, padding_mode, num_heads)[keep].flatten(2, -2)
    v = _heads(value.to(compute), num_heads).movedim(2, -1)[keep].flatten(2, -2)
    if key_mask is not None:
        # A weight of 0 does not silence NaN.
        silent = ~key_mask[(slice(None), *keep[2:])].flatten(1)[:, None, :, None]
        kk, v = kk.masked_fill(silent, 0), v.masked_fill(silent, 0)
    q, kk, scale = _as_products(q, kk, similarity)
    allowed = _allowed(query_size, key_size, stride, key_mask, causal, int(strict), query.device)
    batch = query.shape[0]
    out = functional.scaled_dot_product_attention(
        q, kk.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1), attn_mask=allowed, scale=scale / temperature
    )
    if allowed is not None:
        # Without any key the softmax is undefined; the layers' convention is 0.
        out = torch.where(allowed.any(-1, keepdim=True), out, torch.zeros((), dtype=out.dtype, device=out.device))
    out = out.movedim(-1, 2).reshape(batch, value.shape[1], *query_size)
    if query_mask is not None:
        out = out.masked_fill(~query_mask.unsqueeze(1), 0)
    return out.to(value.dtype)


def _patches(image: Tensor, patch: tuple[int, ...], padding_mode: str, num_heads: int) -> Tensor:
    """`(B, C, *spatial)` to `(B, heads, *spatial, C / heads * elements of a patch)`."""
    padding = [r for size in reversed(patch) for r in (size // 2, size // 2)]
    mode = {"zeros": "constant"}.get(physical_padding(padding_mode), padding_mode)
    padded = functional.pad(image, padding, mode=mode) if any(padding) else image
    for dim, size in enumerate(patch):
        padded = padded.unfold(2 + dim, size, 1)
    dims = len(patch)
    split = _heads(padded, num_heads)
    # (B, heads, C, *spatial, *patch): the channels go beside the patch.
    return split.movedim(2, 2 + dims).flatten(2 + dims)


def _heads(image: Tensor, num_heads: int) -> Tensor:
    """`(B, C, ...)` to `(B, heads, C / heads, ...)`."""
    return image.reshape(image.shape[0], num_heads, -1, *image.shape[2:])


def _as_products(q: Tensor, k: Tensor, similarity: str) -> tuple[Tensor, Tensor, float]:
    """Rewrite query and key vectors so that the similarity (up to a constant for each query) is scale * q.k."""
    if similarity == "l2":
        centre = k.detach().mean((0, 2), keepdim=True)  # the same differences, and fewer digits lost
        q, k = q - centre, k - centre
        q = torch.cat([2 * q, torch.ones_like(q[..., :1])], -1)
        return q, torch.cat([k, -k.square().sum(-1, keepdim=True)], -1), 1.0
    if similarity == "cosine":
        return functional.normalize(q, dim=-1), functional.normalize(k, dim=-1), 1.0
    return q, k, 1.0 if similarity == "dot" else q.shape[-1] ** -0.5


def _allowed(
    query_size: tuple[int, ...],
    key_size: tuple[int, ...],
    stride: tuple[int, ...],
    key_mask: Tensor | None,
    is_causal: bool,
    lag: int,
    device: torch.device,
) -> Tensor | None:
    """Bool `(B or 1, 1, queries or 1, keys)`, or None where everything is allowed."""
    keep = tuple(slice(None, None, s) for s in stride)
    allowed = None
    if key_mask is not None:
        allowed = key_mask[(slice(None), *keep)].flatten(1)[:, None, None, :]
    if is_causal:
        position = torch.arange(prod(key_size), device=device).view(key_size)[keep].flatten()
        query = torch.arange(prod(query_size), device=device)
        before = position[None, None, None, :] + lag <= query[None, None, :, None]
        allowed = before if allowed is None else allowed & before
    return allowed


class FullAttention(nn.Module):
    """`full_attention` as a layer without parameters: `layer(query, key, value)`.

    Example:
        >>> import torch
        >>> from patchattn import FullAttention
        >>> features = torch.rand(1, 4, 12, 12)
        >>> FullAttention(patch_size=3, key_stride=2)(features, features, features).shape
        torch.Size([1, 4, 12, 12])
    """

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
        super().__init__()
        self.patch_size = patch_size
        self.similarity = similarity
        self.temperature = temperature
        self.num_heads = num_heads
        self.key_stride = key_stride
        self.is_causal = is_causal
        self.padding_mode = padding_mode

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        query_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
    ) -> Tensor:
        return full_attention(
            query, key, value, query_mask=query_mask, key_mask=key_mask, patch_size=self.patch_size,
            similarity=self.similarity, temperature=self.temperature, num_heads=self.num_heads,
            key_stride=self.key_stride, is_causal=self.is_causal, padding_mode=self.padding_mode,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"patch_size={self.patch_size}, similarity={self.similarity!r}, temperature={self.temperature}, "
            f"num_heads={self.num_heads}, key_stride={self.key_stride}"
        )
