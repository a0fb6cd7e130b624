"""Which patches are cut, and which may match: the arguments of match(), checked and brought to one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from patchattn.checks import check_choice, check_mask, per_dimension
from patchattn.settings import Causality, PaddingMode

__all__ = [
    "PADDING_MODES",
    "check_patch_size",
    "inside_mask",
    "odd_sizes",
    "physical_padding",
    "resolve_causality",
    "resolve_masks",
]

PADDING_MODES = get_args(PaddingMode)


def check_patch_size(
    patch_size: int | Sequence[int], padding_mode: str, query_size: tuple[int, ...], key_size: tuple[int, ...]
) -> tuple[int, ...]:
    """Check that a patch size is odd and positive in each dimension, and no larger than the padding mode allows."""
    check_choice("padding_mode", padding_mode, PADDING_MODES)
    sizes = odd_sizes(patch_size, len(query_size))
    for name, image in (("query", query_size), ("key", key_size)):
        if 0 in image:
            continue  # there is no patch
        for size, extent in zip(sizes, image, strict=True):
            if padding_mode == "reflect" and size // 2 >= extent:
                raise ValueError(
                    f"patch_size: got {patch_size!r}; padding_mode='reflect' needs {name} of more than "
                    f"{size // 2} in each dimension, got {image}. Use a smaller patch or padding_mode='replicate'."
                )
            if padding_mode == "valid" and size > extent:
                raise ValueError(
                    f"patch_size: got {patch_size!r}; with padding_mode='valid' no patch fits into {name} of size "
                    f"{image}."
                )
    return sizes


def odd_sizes(patch_size: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """Check that a patch size is odd and positive in each dimension."""
    sizes = per_dimension("patch_size", patch_size, dims, 1)
    if any(size % 2 == 0 for size in sizes):
        raise ValueError(f"patch_size: expected odd numbers (a patch has a center), got {patch_size!r}.")
    return sizes


def physical_padding(padding_mode: str) -> str:
    """Padding mode of the kernels: under "valid" the patches that would read it are masked out."""
    return "zeros" if padding_mode == "valid" else padding_mode


def resolve_causality(
    is_causal: Causality | str, query_size: tuple[int, ...], key_size: tuple[int, ...]
) -> tuple[bool, bool]:
    """Whether matches are causal, and whether strictly so."""
    if not isinstance(is_causal, bool) and is_causal != "strict":
        raise ValueError(f"is_causal: got {is_causal!r}; allowed are True, False and 'strict'.")
    if is_causal and query_size != key_size:
        raise ValueError(f"is_causal: query and key must have one spatial size, got {query_size} and {key_size}.")
    return bool(is_causal), is_causal == "strict"


def inside_mask(size: tuple[int, ...], patch_size: tuple[int, ...], device: torch.device) -> Tensor:
    """`(1, *size)`: True where the whole patch lies inside the image."""
    mask = torch.ones((1,), dtype=torch.bool, device=device)
    for n, p in zip(size, patch_size, strict=True):
        position = torch.arange(n, device=device)
        mask = mask[..., None] & (position >= p // 2) & (position < n - p // 2)
    return mask


def resolve_masks(
    query: Tensor,
    key: Tensor,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    patch_size: tuple[int, ...],
    padding_mode: str,
) -> tuple[Tensor | None, Tensor | None]:
    """The masks, checked, with the border taken out under "valid"."""
    check_mask("query_mask", query_mask, "query", query, query.shape[0])
    check_mask("key_mask", key_mask, "key", key, query.shape[0])
    if padding_mode != "valid":
        return query_mask, key_mask
    query_inside = inside_mask(tuple(query.shape[2:]), patch_size, query.device)
    key_inside = inside_mask(tuple(key.shape[2:]), patch_size, key.device)
    return (
        query_inside if query_mask is None else query_mask & query_inside,
        key_inside if key_mask is None else key_mask & key_inside,
    )
