"""Global attention between images at any resolution, in memory linear in the number of pixels."""

from __future__ import annotations

from patchattn import baselines
from patchattn.attention import (
    ContextualAttention,
    CrossScaleAttention,
    CrossScalePatchAttention,
    MaskedPatchAttention,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    ScramDiagnostics,
    attend,
    attend_at,
    contextual_attention,
    cross_scale_attention,
    cross_scale_patch_attention,
    fold,
    gather,
    masked_patch_attention,
    patch_attention,
    scram_attention,
    similarity_at,
    unfold,
)
from patchattn.block_masks import block_mask, flex_block_mask, hilbert_order
from patchattn.deprecation import moved_names
from patchattn.field import MatchField, MatchTransform
from patchattn.matching import PreparedKey, majority_vote, match, prepare
from patchattn.similarity import Similarity, pointwise_similarity

__version__ = "0.1.0"

__all__ = [
    "ContextualAttention",
    "CrossScaleAttention",
    "CrossScalePatchAttention",
    "MaskedPatchAttention",
    "MatchField",
    "MatchTransform",
    "MultiheadPatchAttention2d",
    "PatchAttention",
    "PreparedKey",
    "ScramAttention",
    "ScramDiagnostics",
    "Similarity",
    "attend",
    "attend_at",
    "baselines",
    "block_mask",
    "contextual_attention",
    "cross_scale_attention",
    "cross_scale_patch_attention",
    "flex_block_mask",
    "fold",
    "gather",
    "hilbert_order",
    "majority_vote",
    "masked_patch_attention",
    "match",
    "patch_attention",
    "pointwise_similarity",
    "prepare",
    "scram_attention",
    "similarity_at",
    "unfold",
]

__getattr__ = moved_names(
    __name__,
    {
        name: f"patchattn.baselines:{name}"
        for layer in ("Full", "Linear", "Local", "Performer", "Reformer", "Sparse")
        for name in (f"{layer}Attention", f"{layer.lower()}_attention")
    },
)
