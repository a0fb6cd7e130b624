"""Weights from similarities, output from values."""

from __future__ import annotations

from patchattn.attention.contextual import ContextualAttention, contextual_attention
from patchattn.attention.cross_scale import CrossScaleAttention, cross_scale_attention
from patchattn.attention.cross_scale_patch import CrossScalePatchAttention, cross_scale_patch_attention
from patchattn.attention.full import FullAttention, full_attention
from patchattn.attention.linear import LinearAttention, linear_attention
from patchattn.attention.local import LocalAttention, local_attention
from patchattn.attention.masked import MaskedPatchAttention, masked_patch_attention
from patchattn.attention.multihead import MultiheadPatchAttention2d
from patchattn.attention.patch import PatchAttention, patch_attention
from patchattn.attention.performer import PerformerAttention, performer_attention
from patchattn.attention.reformer import ReformerAttention, reformer_attention
from patchattn.attention.scram import ScramAttention, ScramDiagnostics, scram_attention
from patchattn.attention.sparse import SparseAttention, sparse_attention

__all__ = [
    "ContextualAttention",
    "CrossScaleAttention",
    "CrossScalePatchAttention",
    "FullAttention",
    "LinearAttention",
    "LocalAttention",
    "MaskedPatchAttention",
    "MultiheadPatchAttention2d",
    "PatchAttention",
    "PerformerAttention",
    "ReformerAttention",
    "ScramAttention",
    "ScramDiagnostics",
    "SparseAttention",
    "contextual_attention",
    "cross_scale_attention",
    "cross_scale_patch_attention",
    "full_attention",
    "linear_attention",
    "local_attention",
    "masked_patch_attention",
    "patch_attention",
    "performer_attention",
    "reformer_attention",
    "scram_attention",
    "sparse_attention",
]
