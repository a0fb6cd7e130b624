"""The arguments that the layers of this package share: their types and defaults, declared once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

from torch import Tensor

from patchattn.attention.images import Images, check_images
from patchattn.settings import Causality, CommonSettings, PaddingMode

__all__ = ["BaselineOptions", "BaselineSettings", "Product", "SoftmaxOptions", "SoftmaxSettings", "images_of"]

Product = Literal["l2", "dot", "scaled_dot", "cosine"]
"""Similarities that are products of vectors, or can be made so."""


@dataclass(kw_only=True, eq=False, repr=False)
class BaselineSettings:
    """Defaults that all layers share; see `patchattn.patch_attention` for what each means."""

    patch_size: int | Sequence[int] = 7
    num_heads: int = 1
    padding_mode: PaddingMode = "reflect"


@dataclass(kw_only=True, eq=False, repr=False)
class SoftmaxSettings(BaselineSettings):
    """Defaults of layers that take the softmax of any similarity."""

    similarity: Product = "l2"
    temperature: float = 1.0
    is_causal: Causality = False


class BaselineOptions(TypedDict, total=False):
    """The types of `BaselineSettings`, for type checkers."""

    patch_size: int | Sequence[int]
    num_heads: int
    padding_mode: PaddingMode


class SoftmaxOptions(BaselineOptions, total=False):
    """The types of `SoftmaxSettings`."""

    similarity: Product
    temperature: float
    is_causal: Causality


def images_of(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    settings: BaselineSettings,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
) -> Images:
    """Check the tensors and settings of a call."""
    common = CommonSettings(num_heads=settings.num_heads, padding_mode=settings.padding_mode)
    similarity: str = "l2"
    if isinstance(settings, SoftmaxSettings):
        common.is_causal, similarity = settings.is_causal, settings.similarity
    return check_images(query, key, value, common, settings.patch_size, similarity, query_mask, key_mask)
