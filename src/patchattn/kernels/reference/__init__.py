"""The reference backend: plain PyTorch on any device, written to be read; what the other backends must reproduce."""

from __future__ import annotations

from patchattn.kernels.reference.attend import attend, attend_backward
from patchattn.kernels.reference.chains import sample_chains
from patchattn.kernels.reference.exact import search_exact
from patchattn.kernels.reference.expand import expand
from patchattn.kernels.reference.guided import search_guided
from patchattn.kernels.reference.majority import majority
from patchattn.kernels.reference.mixture import sample_mixture
from patchattn.kernels.reference.patchmatch import search_patchmatch
from patchattn.kernels.reference.repeated import search_repeated
from patchattn.kernels.reference.similarity import similarity_at
from patchattn.kernels.reference.similarity_backward import similarity_at_backward
from patchattn.kernels.reference.similarity_tangent import similarity_tangent
from patchattn.kernels.reference.weighted_sum import weighted_sum, weighted_sum_backward

__all__ = [
    "attend",
    "attend_backward",
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
    "weighted_sum",
    "weighted_sum_backward",
]
