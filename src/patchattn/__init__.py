"""Global attention between images at any resolution, in memory linear in the number of pixels."""

from __future__ import annotations

from patchattn.attention import FullAttention, PatchAttention, full_attention, patch_attention
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.similarity import Similarity, pointwise_similarity

__version__ = "0.1.0"

__all__ = [
    "FullAttention",
    "MatchField",
    "PatchAttention",
    "Similarity",
    "full_attention",
    "match",
    "patch_attention",
    "pointwise_similarity",
]
