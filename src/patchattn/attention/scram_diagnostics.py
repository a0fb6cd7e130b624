"""Diagnostics of `scram_attention`: keys and weights of an output, and measures of trust in an estimate."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.attention.blocks import fold_blocks
from patchattn.attention.monte_carlo import effective_sample_size, estimator_variance, r_hat
from patchattn.attention.scram_keys import Estimate
from patchattn.field import register_tree

__all__ = ["ScramDiagnostics", "diagnostics_of"]


@dataclass(frozen=True)
class ScramDiagnostics:
    """Keys and weights that an output was computed from, and measures of how far an estimate may be trusted."""

    samples: Tensor
    """int32 `(B, heads, T, *query)`: the keys that were used, -1 for none."""
    weights: Tensor
    """`(B, heads, T, *query)`: their weights; they sum to 1 under the softmax, and are equation (4)'s f / C else."""
    variance: Tensor | None = None
    """`(B, Cv, *query)`: of importance sampling, equation (15)."""
    effective_sample_size: Tensor | None = None
    """`(B, heads, *query)`: of importance sampling, equation (16)."""
    acceptance_rate: Tensor | None = None
    """`(B, heads, *query)`: of Metropolis-Hastings, the share of proposals that were accepted."""
    r_hat: Tensor | None = None
    """`(B, Cv, *query)`: of Metropolis-Hastings, near 1 where the chains agree; large where each keeps to its mode."""


register_tree(ScramDiagnostics)


@torch.no_grad()
def diagnostics_of(estimate: Estimate, weights: Tensor, blocks: Tensor, output: Tensor, ratio: int) -> ScramDiagnostics:
    """Diagnostics of an output that was computed from `blocks` with these weights."""
    value, weights = blocks.detach().to(weights.dtype), weights.detach()
    if estimate.chains is not None:
        agreement = fold_blocks(r_hat(estimate.keys, value, estimate.chains), ratio)
        return ScramDiagnostics(estimate.keys, weights, acceptance_rate=estimate.acceptance, r_hat=agreement)
    if estimate.is_sampled:
        variance = estimator_variance(weights, estimate.keys, value, output.detach().to(weights.dtype))
        return ScramDiagnostics(estimate.keys, weights, fold_blocks(variance, ratio), effective_sample_size(weights))
    return ScramDiagnostics(estimate.keys, weights)
