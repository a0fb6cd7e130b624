"""Numba kernels for the CPU: the same functions as the reference."""

from __future__ import annotations

from patchattn.kernels.cpu.attend import attend, attend_backward
from patchattn.kernels.cpu.attend_similar import attend_similar, attend_similar_backward, takes_similar
from patchattn.kernels.cpu.chains import sample_chains
from patchattn.kernels.cpu.exact import search_exact
from patchattn.kernels.cpu.expand import expand
from patchattn.kernels.cpu.guided import search_guided
from patchattn.kernels.cpu.majority import majority
from patchattn.kernels.cpu.mixture import sample_mixture
from patchattn.kernels.cpu.patchmatch import search_patchmatch, search_repeated
from patchattn.kernels.cpu.similarity import similarity_at
from patchattn.kernels.cpu.similarity_backward import similarity_at_backward
from patchattn.kernels.cpu.similarity_tangent import similarity_tangent
from patchattn.kernels.cpu.weighted_sum import weighted_sum, weighted_sum_backward

__all__ = [
    "attend",
    "attend_backward",
    "attend_similar",
    "attend_similar_backward",
    "expand",
    "majority",
    "sample_chains",
    "sample_mixture",
    "search_exact",
    "search_guided",
    "search_patchmatch",
    "search_repeated",
    "similarity_at",
    "similarity_at_backward",
    "similarity_tangent",
    "takes_similar",
    "weighted_sum",
    "weighted_sum_backward",
]
