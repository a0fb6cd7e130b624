"""Attention layers and their functions: softmax weights of similarities, applied to values."""

from __future__ import annotations

from patchattn.attention.contextual import ContextualAttention, contextual_attention
from patchattn.attention.cross_scale import CrossScaleAttention, cross_scale_attention
from patchattn.attention.cross_scale_patch import CrossScalePatchAttention, cross_scale_patch_attention
from patchattn.attention.folding import fold, unfold
from patchattn.attention.masked import MaskedPatchAttention, masked_patch_attention
from patchattn.attention.multihead import MultiheadPatchAttention2d
from patchattn.attention.patch import PatchAttention, patch_attention
from patchattn.attention.scram import ScramAttention, ScramDiagnostics, scram_attention
from patchattn.attention.similarities import similarity_at
from patchattn.attention.tokens import attend_at
from patchattn.attention.values import attend, gather

__all__ = [
    "ContextualAttention",
    "CrossScaleAttention",
    "CrossScalePatchAttention",
    "MaskedPatchAttention",
    "MultiheadPatchAttention2d",
    "PatchAttention",
    "ScramAttention",
    "ScramDiagnostics",
    "attend",
    "attend_at",
    "contextual_attention",
    "cross_scale_attention",
    "cross_scale_patch_attention",
    "fold",
    "gather",
    "masked_patch_attention",
    "patch_attention",
    "scram_attention",
    "similarity_at",
    "unfold",
]
