"""Autocast: whether it is on, and sums that it does not touch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["autocasts", "without_autocast"]


def autocasts(device: torch.device) -> bool:
    """Whether products on a device are taken in half precision; some types of devices know no autocast."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Sums in the precision of the tensors."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()
