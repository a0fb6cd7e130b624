"""Arguments of different precision, as autocast leaves them."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from patchattn.ops.autocast import autocasts

__all__ = ["promote"]


def promote(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Under autocast, bring floating-point tensors to the highest precision among them (sums are in float32 anyway)."""
    if not all(isinstance(tensor, Tensor) and tensor.is_floating_point() for tensor in tensors):
        return tensors  # the checks that follow say what is wrong
    if not autocasts(tensors[0].device):
        return tensors
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return tuple(tensor.to(dtype) for tensor in tensors)
