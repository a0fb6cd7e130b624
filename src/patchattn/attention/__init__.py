"""Weights from similarities, output from values."""

from __future__ import annotations

from patchattn.attention.full import FullAttention, full_attention
from patchattn.attention.patch import PatchAttention, patch_attention

__all__ = ["FullAttention", "PatchAttention", "full_attention", "patch_attention"]
