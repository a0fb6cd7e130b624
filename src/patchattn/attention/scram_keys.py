"""The keys that `scram_attention` uses for each query, and the logarithms of their weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from torch import Tensor

from patchattn.attention.comparison import Comparison
from patchattn.attention.monte_carlo import chain_estimate, importance_estimate
from patchattn.attention.scoring import Scoring, define_scoring
from patchattn.attention.scram_settings import CheckedSettings, ScramSettings, check_search, is_softmax
from patchattn.checks import check_count
from patchattn.matching.define import define_constraints, define_geometry, resolve_backend
from patchattn.ops.sample_chains import Chains
from patchattn.ops.sample_mixture import Mixture
from patchattn.problem import Problem, Strategy

__all__ = ["Estimate", "compare", "estimate_of", "modes_problem", "scoring_of"]

ITERATIONS_A_SCAN = 4
"""A scan of the guided search finds at least what so many iterations of Algorithm 1 do (docs/performance.md)."""


@dataclass(frozen=True)
class Estimate:
    """The keys that an output is computed from."""

    keys: Tensor
    """`(B, heads, any number, *query)`; -1 for none."""
    score: Tensor
    """Logarithms of their weights, likewise."""
    is_sampled: bool = False
    chains: int | None = None
    """Markov chains that they are the states of."""
    acceptance: Tensor | None = None


def compare(
    query: Tensor, key: Tensor, settings: ScramSettings, query_mask: Tensor | None, key_mask: Tensor | None
) -> Comparison:
    """Check query, key and who of them may be compared."""
    geometry = define_geometry(query, key, settings, settings.patch_size, settings.similarity)
    constraints = define_constraints(query, key, settings, geometry, query_mask, key_mask)
    return Comparison(query, key, geometry, constraints, resolve_backend(settings.backend, query))


def modes_problem(comparison: Comparison, settings: ScramSettings, checked: CheckedSettings) -> Problem:
    """The search for the best keys, or the best that are apart."""
    k, constraints = check_count("k", settings.k, 1), comparison.constraints
    if k > 1:
        constraints = replace(constraints, min_separation=checked.separation)
    method, iterations = check_search(settings.method, settings.iterations, constraints.is_causal)
    strategy = Strategy(method, iterations, ceil(iterations / ITERATIONS_A_SCAN), None, checked.seed)
    return Problem(k, comparison.geometry, constraints, strategy, comparison.backend)


def scoring_of(comparison: Comparison, settings: ScramSettings) -> Scoring:
    """Temperature and bias, checked."""
    scoring = define_scoring(
        settings.temperature,
        settings.bias,
        query=comparison.query,
        key_size=tuple(comparison.key.shape[2:]),
        num_heads=comparison.geometry.num_heads,
        backend=comparison.backend,
        limit=comparison.constraints.max_offset,
    )
    if settings.estimator == "mh" and scoring.number is None:
        raise ValueError(
            "temperature, bias: the chains of estimator='mh' walk by similarities over one number; use 'snis' with a "
            "temperature that is a tensor, or with a bias."
        )
    return scoring


def estimate_of(
    comparison: Comparison,
    modes: Tensor,
    found: Tensor | None,
    scoring: Scoring,
    settings: ScramSettings,
    checked: CheckedSettings,
) -> Estimate:
    """The keys around the modes, or keys drawn from there; `found` are the similarities of the modes, if known."""
    radius, scale = checked.radius, checked.scale
    if settings.estimator is None:
        keys = comparison.expand(modes, radius) if any(radius) else modes
        # One key alone has weight 1 whatever its similarity: nothing to differentiate.
        trains = comparison.trains and (keys.shape[2] > 1 or not is_softmax(settings))
        if found is None or any(radius) or trains:
            found = comparison.similarity_at(keys)
        return Estimate(keys, scoring(found, keys))
    if settings.estimator == "snis":
        mixture = Mixture(scale, checked.alpha, checked.samples, checked.seed)
        return Estimate(*importance_estimate(comparison, modes, scoring, mixture), is_sampled=True)
    starts = modes.shape[2] * checked.chains
    assert scoring.number is not None  # see scoring_of
    chains = Chains(scale, scoring.number, checked.chains, ceil(checked.samples / starts), checked.seed)
    keys, score, acceptance = chain_estimate(comparison, modes, chains)
    return Estimate(keys, score, True, starts, acceptance)
