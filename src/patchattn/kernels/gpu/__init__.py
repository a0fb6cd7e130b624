"""The GPU backend: Triton kernels, one source for CUDA, ROCm and XPU; on the CPU in Triton's interpreter."""

from __future__ import annotations

from patchattn.kernels.gpu.attend import attend, attend_backward
from patchattn.kernels.gpu.chains import sample_chains
from patchattn.kernels.gpu.exact import search_exact
from patchattn.kernels.gpu.expand import expand
from patchattn.kernels.gpu.guided import search_guided
from patchattn.kernels.gpu.majority import majority
from patchattn.kernels.gpu.mixture import sample_mixture
from patchattn.kernels.gpu.patchmatch import search_patchmatch, search_repeated
from patchattn.kernels.gpu.similarity import similarity_at
from patchattn.kernels.gpu.similarity_backward import similarity_at_backward
from patchattn.kernels.gpu.similarity_tangent import similarity_tangent
from patchattn.kernels.gpu.weighted_sum import weighted_sum, weighted_sum_backward

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
