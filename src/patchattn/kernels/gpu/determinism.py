"""Whether sums may be taken in an order that changes from run to run."""

from __future__ import annotations

import os

import torch

__all__ = ["atomics_allowed"]


def atomics_allowed() -> bool:
    """Only where the environment asks for it (PATCHATTN_GPU_ATOMICS=1), and PyTorch need not be deterministic."""
    return os.environ.get("PATCHATTN_GPU_ATOMICS") == "1" and not torch.are_deterministic_algorithms_enabled()
