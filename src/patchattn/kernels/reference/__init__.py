"""The reference backend: plain PyTorch on any device, written to be read; what the other backends must reproduce."""

from __future__ import annotations

from patchattn.kernels.reference.attend import attend, attend_backward
from patchattn.kernels.reference.exact import search_exact
from patchattn.kernels.reference.guided import search_guided
from patchattn.kernels.reference.patchmatch import search_patchmatch
from patchattn.kernels.reference.similarity import similarity_at
from patchattn.kernels.reference.similarity_backward import similarity_at_backward

__all__ = [
    "attend",
    "attend_backward",
    "search_exact",
    "search_guided",
    "search_patchmatch",
    "similarity_at",
    "similarity_at_backward",
]
