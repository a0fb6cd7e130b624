"""Weights from similarities, output from values."""

from __future__ import annotations

from patchattn.attention.full import FullAttention, full_attention
from patchattn.attention.multihead import MultiheadPatchAttention2d
from patchattn.attention.patch import PatchAttention, patch_attention
from patchattn.attention.scram import ScramAttention, ScramDiagnostics, scram_attention

__all__ = [
    "FullAttention",
    "MultiheadPatchAttention2d",
    "PatchAttention",
    "ScramAttention",
    "ScramDiagnostics",
    "full_attention",
    "patch_attention",
    "scram_attention",
]
