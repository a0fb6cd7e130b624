"""Make the description of a search from the arguments of a public function: checked here, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from patchattn.backends import KernelBackend, find_backend
from patchattn.checks import check_count, check_pair, per_dimension, warn_of_missing_batch
from patchattn.kernels import default_backend
from patchattn.matching.constraints import check_patch_size, physical_padding, resolve_causality, resolve_masks
from patchattn.ops.methods import check_method
from patchattn.problem import Constraints, PatchGeometry, Problem, Strategy
from patchattn.settings import CommonSettings, SearchSettings
from patchattn.similarity import Similarity, resolve_similarity

__all__ = ["define_constraints", "define_geometry", "define_problem", "resolve_backend"]


def define_problem(
    query: Tensor, key: Tensor, settings: SearchSettings, query_mask: Tensor | None, key_mask: Tensor | None
) -> Problem:
    """Describe the search that settings and masks ask for."""
    geometry = define_geometry(query, key, settings, settings.patch_size, settings.similarity)
    k = check_count("k", settings.k, 1)
    separation = () if k == 1 else per_dimension("min_separation", settings.min_separation, query.dim() - 2, 0)
    constraints = define_constraints(query, key, settings, geometry, query_mask, key_mask, separation)
    method, iterations = check_method(settings.method, settings.iterations)
    strategy = Strategy(method, iterations, iterations, None, check_count("seed", settings.seed, 0))
    return Problem(k, geometry, constraints, strategy, resolve_backend(settings.backend, query))


def define_geometry(
    query: Tensor,
    key: Tensor,
    settings: CommonSettings,
    patch_size: int | Sequence[int],
    similarity: str | Similarity,
) -> PatchGeometry:
    """Check query and key, and describe how their patches are compared."""
    check_pair(query, key, settings.num_heads)
    warn_of_missing_batch(query, patch_size)
    patch = check_patch_size(patch_size, settings.padding_mode, tuple(query.shape[2:]), tuple(key.shape[2:]))
    padding_mode, heads = physical_padding(settings.padding_mode), int(settings.num_heads)
    return PatchGeometry(patch, padding_mode, heads, resolve_similarity(similarity))


def define_constraints(
    query: Tensor,
    key: Tensor,
    settings: CommonSettings,
    geometry: PatchGeometry,
    query_mask: Tensor | None,
    key_mask: Tensor | None,
    min_separation: tuple[int, ...] = (),
) -> Constraints:
    """Check masks and limits, and describe which keys a query may match."""
    causal, strict = resolve_causality(settings.is_causal, tuple(query.shape[2:]), tuple(key.shape[2:]))
    masks = resolve_masks(query, key, query_mask, key_mask, geometry.patch_size, settings.padding_mode)
    offset = settings.max_offset
    if offset is not None:
        offset = per_dimension("max_offset", offset, query.dim() - 2, 0)
    # Distinct matches are 0 apart, which is nothing to keep.
    separation = min_separation or (0,) * (query.dim() - 2)
    return Constraints(*masks, causal, separation, offset, strict)


def resolve_backend(backend: str | KernelBackend | None, tensor: Tensor) -> str:
    """Return the backend for a tensor's device, or check that the given one can serve it."""
    if backend is None:
        return default_backend(tensor.device.type)
    known = backend if isinstance(backend, KernelBackend) else find_backend(backend)
    reason = None if known.refuses is None else known.refuses(tensor.device)
    if reason is not None:
        raise ValueError(f"backend: {reason}.")
    return known.name
