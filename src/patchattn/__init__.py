"""Global attention between images at any resolution, in memory linear in the number of pixels."""

from __future__ import annotations

from logging import NullHandler, getLogger

from patchattn.attention import (
    ContextualAttention,
    CrossScaleAttention,
    CrossScalePatchAttention,
    FullAttention,
    LinearAttention,
    LocalAttention,
    MaskedPatchAttention,
    MultiheadPatchAttention2d,
    PatchAttention,
    PerformerAttention,
    ReformerAttention,
    ScramAttention,
    ScramDiagnostics,
    SparseAttention,
    contextual_attention,
    cross_scale_attention,
    cross_scale_patch_attention,
    full_attention,
    linear_attention,
    local_attention,
    masked_patch_attention,
    patch_attention,
    performer_attention,
    reformer_attention,
    scram_attention,
    sparse_attention,
)
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.similarity import Similarity, pointwise_similarity

__version__ = "0.1.0"

getLogger(__name__).addHandler(NullHandler())

__all__ = [
    "ContextualAttention",
    "CrossScaleAttention",
    "CrossScalePatchAttention",
    "FullAttention",
    "LinearAttention",
    "LocalAttention",
    "MaskedPatchAttention",
    "MatchField",
    "MultiheadPatchAttention2d",
    "PatchAttention",
    "PerformerAttention",
    "ReformerAttention",
    "ScramAttention",
    "ScramDiagnostics",
    "Similarity",
    "SparseAttention",
    "contextual_attention",
    "cross_scale_attention",
    "cross_scale_patch_attention",
    "full_attention",
    "linear_attention",
    "local_attention",
    "masked_patch_attention",
    "match",
    "patch_attention",
    "performer_attention",
    "pointwise_similarity",
    "reformer_attention",
    "scram_attention",
    "sparse_attention",
]
