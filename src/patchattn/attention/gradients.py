"""Whether gradients are wanted."""

from __future__ import annotations

import torch
from torch import Tensor

from patchattn.checks import is_traced

__all__ = ["wants_gradient", "without_elements"]


def wants_gradient(*tensors: Tensor) -> bool:
    """Whether a gradient with respect to any of these may be asked for; of what `torch.jit.trace` records, any may."""
    return torch.is_grad_enabled() and (is_traced() or any(tensor.requires_grad for tensor in tensors))


def without_elements(shape: tuple[int, ...], *tensors: Tensor) -> Tensor:
    """An empty tensor with respect to which all of the others have the gradient 0."""
    total: Tensor = sum(tensor.sum() for tensor in tensors)  # type: ignore[assignment]
    return total.expand(shape)
