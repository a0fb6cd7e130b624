"""Global attention between images at any resolution, in memory linear in the number of pixels."""

from __future__ import annotations

from patchattn.attention import (
    FullAttention,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    ScramDiagnostics,
    full_attention,
    patch_attention,
    scram_attention,
)
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.similarity import Similarity, pointwise_similarity

__version__ = "0.1.0"

__all__ = [
    "FullAttention",
    "MatchField",
    "MultiheadPatchAttention2d",
    "PatchAttention",
    "ScramAttention",
    "ScramDiagnostics",
    "Similarity",
    "full_attention",
    "match",
    "patch_attention",
    "pointwise_similarity",
    "scram_attention",
]
