"""Arguments of different precision, as autocast leaves them."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

__all__ = ["promote"]


def promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, bring floating-point tensors to the highest precision among them (sums are in float32 anyway)."""
    first = tensors[0]
    if not isinstance(first, Tensor) or not torch.is_autocast_enabled(first.device.type):
        return tensors
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return tuple(tensor.to(dtype) for tensor in tensors)
