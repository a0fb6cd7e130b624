"""Autocast: whether it is on, and sums that it does not touch."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

__all__ = ["autocasts", "without_autocast"]

COMPILED_TYPES = tuple(name for name in ("cpu", "cuda", "xpu", "mps") if torch.amp.is_autocast_available(name))
"""Types of devices with autocast; PyTorch 2.6 cannot ask for them in a graph."""


def autocasts(device: torch.device) -> bool:
    """Return whether products on a device are taken in half precision; some types of devices know no autocast."""
    compiling = torch.compiler.is_compiling()
    known = device.type in COMPILED_TYPES if compiling else torch.amp.is_autocast_available(device.type)
    return known and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Sums in the precision of the tensors."""
    return torch.autocast(device.type, enabled=False) if autocasts(device) else nullcontext()
