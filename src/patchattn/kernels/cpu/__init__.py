"""Numba kernels for the CPU: the same functions as the reference."""

from __future__ import annotations

from patchattn.kernels.cpu.attend import attend, attend_backward
from patchattn.kernels.cpu.exact import search_exact
from patchattn.kernels.cpu.guided import search_guided
from patchattn.kernels.cpu.patchmatch import search_patchmatch
from patchattn.kernels.cpu.similarity import similarity_at, similarity_at_backward

__all__ = [
    "attend",
    "attend_backward",
    "search_exact",
    "search_guided",
    "search_patchmatch",
    "similarity_at",
    "similarity_at_backward",
]
