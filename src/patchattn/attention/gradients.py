"""Gradients of tensors without elements."""

from __future__ import annotations

from torch import Tensor

__all__ = ["without_elements"]


def without_elements(shape: tuple[int, ...], *tensors: Tensor) -> Tensor:
    """An empty tensor with respect to which all of the others have the gradient 0."""
    total: Tensor = sum(tensor.sum() for tensor in tensors)  # type: ignore[assignment]
    return total.expand(shape)
