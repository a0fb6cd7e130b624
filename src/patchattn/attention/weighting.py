"""Weights other than the softmax: any function of the similarities over any constant, equation (4) of SCRAM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from patchattn.attention.scram_settings import Weighting

__all__ = ["weights_of"]


def weights_of(score: Tensor, weighting: Weighting, normalization: Any) -> Tensor:
    """f(s) / C(f), 0 where there is no key."""
    exists = score > -torch.inf
    best = score.detach().amax(2, keepdim=True)
    # f is never asked about minus infinity: 0 times an infinite derivative would not be 0.
    known = torch.where(exists, score, torch.where(best > -torch.inf, best, 0))
    weight = torch.where(exists, weighting(known), 0)
    if callable(normalization):
        constant = normalization(weight)
    elif normalization == "sum":
        constant = weight.sum(2)
    elif normalization == "count":
        constant = exists.sum(2).to(weight.dtype)
    else:
        return weight
    constant = constant.unsqueeze(2)
    return torch.where(constant != 0, weight / torch.where(constant != 0, constant, 1), 0)
