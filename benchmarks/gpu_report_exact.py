"""Attention by PyTorch's fused kernels, which the report from a GPU compares with: over all patches, and over a mask of
the same matches.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention, unfold

__all__ = ["fused_attention", "masked_attention"]

FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
"""Those that hold no n x n matrix."""
MULTIPLE = 8
"""Elements of a vector that the kernels ask for a multiple of; zeros beside it change no product."""
BLOCK = 128
"""Queries and keys of a block of FlexAttention's mask."""


def fused_attention(query: Tensor, key: Tensor, value: Tensor, patch_size: int) -> Tensor:
    """Softmax over all keys of the scaled products of unfolded patches; the kernel is what PyTorch chooses.

    Raises:
        RuntimeError: no fused kernel takes these sizes and this precision.
    """
    vectors = [_vectors(image, patch_size) for image in (query, key)]
    scale, values = vectors[0].shape[-1] ** -0.5, _vectors(value, 1)
    # PyTorch has no fused kernel on the CPU for a value shorter than its key.
    kernels = FUSED if query.is_cuda else [*FUSED, SDPBackend.MATH]
    with sdpa_kernel(kernels):
        found = scaled_dot_product_attention(*(_filled(x) for x in (*vectors, values)), scale=scale)
    return _image(found[..., : value.shape[1]], query)


def masked_attention(query: Tensor, key: Tensor, value: Tensor, index: Tensor) -> Callable[[], Tensor]:
    """Attention of single positions to the matches of a field `(1, 1, k, *query)` by FlexAttention, ready to be called.

    Of the scores only blocks of 128 x 128 that hold a match are computed; the list of these is made here. Queries and
    keys must fill whole blocks.
    """
    from torch.nn.attention.flex_attention import BlockMask

    chosen = index[0, 0].flatten(1).contiguous()
    queries = torch.arange(chosen.shape[1], device=chosen.device).expand_as(chosen)
    blocks = -(-chosen.shape[1] // BLOCK), -(-key.shape[2:].numel() // BLOCK)
    touched = torch.zeros(blocks, dtype=torch.bool, device=chosen.device)
    touched[queries // BLOCK, chosen.long() // BLOCK] = True

    def is_match(batch: Any, head: Any, q: Any, kv: Any) -> Any:
        found = chosen[0, q] == kv
        for slot in range(1, len(chosen)):
            found = found | (chosen[slot, q] == kv)
        return found

    order = torch.argsort(~touched, dim=1, stable=True).int()
    mask = BlockMask.from_kv_blocks(touched.sum(1).int()[None, None], order[None, None], mask_mod=is_match)
    vectors = [_vectors(image, 1) for image in (query, key, value)]
    attend = _flex(query.is_cuda)
    return lambda: _image(attend(*vectors, block_mask=mask), query)


def _flex(compiled: bool) -> Callable[..., Tensor]:
    """Compiled for the sizes of its first call; on the CPU, where it only has to be right, it is not compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    if not compiled:
        return flex_attention  # type: ignore[return-value]
    # After some recompilations PyTorch would go over to all scores at once.
    torch._dynamo.reset()
    function: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return function


def _vectors(image: Tensor, patch_size: int) -> Tensor:
    """The patches of an image as `(1, 1, positions, elements)`."""
    if patch_size > 1:
        image = unfold(pad(image, (patch_size // 2,) * 4, mode="reflect"), patch_size)
    return image.flatten(2).transpose(1, 2)[:, None].contiguous()


def _filled(vectors: Tensor) -> Tensor:
    missing = -vectors.shape[-1] % MULTIPLE
    return pad(vectors, (0, missing)) if missing else vectors


def _image(vectors: Tensor, like: Tensor) -> Tensor:
    return vectors[:, 0].transpose(1, 2).unflatten(2, like.shape[2:])
