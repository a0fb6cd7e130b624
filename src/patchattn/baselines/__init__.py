"""The layers that the papers compare with: full, local, linear and sparse attention, Performer and Reformer."""

from __future__ import annotations

from patchattn.baselines.full import FullAttention, full_attention
from patchattn.baselines.linear import LinearAttention, linear_attention
from patchattn.baselines.local import LocalAttention, local_attention
from patchattn.baselines.performer import PerformerAttention, performer_attention
from patchattn.baselines.reformer import ReformerAttention, reformer_attention
from patchattn.baselines.sparse import SparseAttention, sparse_attention

__all__ = [
    "FullAttention",
    "LinearAttention",
    "LocalAttention",
    "PerformerAttention",
    "ReformerAttention",
    "SparseAttention",
    "full_attention",
    "linear_attention",
    "local_attention",
    "performer_attention",
    "reformer_attention",
    "sparse_attention",
]
