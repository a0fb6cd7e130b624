"""Spatially coherent randomized attention (SCRAM): the best keys, their surroundings, and estimates of all the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.attention.blocks import fold_blocks, unfold_blocks, value_ratio
from patchattn.attention.comparison import Comparison
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.monte_carlo import (
    chain_estimate,
    effective_sample_size,
    estimator_variance,
    importance_estimate,
    normalized,
    r_hat,
)
from patchattn.attention.patch import FieldCall
from patchattn.attention.precision import promote
from patchattn.checks import (
    check_choice,
    check_count,
    check_features,
    check_heads,
    check_positive,
    check_share,
    per_dimension,
    positive_per_dimension,
)
from patchattn.field import MatchField, register_tree
from patchattn.matching.define import check_k, define_constraints, define_geometry, resolve_backend
from patchattn.matching.match import check_field, find_field
from patchattn.ops.attend import attend
from patchattn.ops.methods import check_method
from patchattn.ops.sample_chains import Chains
from patchattn.ops.sample_mixture import Mixture
from patchattn.ops.weighted_sum import weighted_sum
from patchattn.problem import Problem, Strategy
from patchattn.search_methods import SearchMethod
from patchattn.settings import CommonOptions, CommonSettings, SimilarityName, settings_from, shows
from patchattn.similarity import Similarity

__all__ = ["ScramAttention", "ScramDiagnostics", "ScramOptions", "ScramSettings", "scram_attention"]

Features = Float[Tensor, "batch channels *spatial"]
Weighting = Callable[[Tensor], Tensor]
Normalization = Literal["sum", "count", "none"] | Callable[[Tensor], Tensor]

ITERATIONS_A_SCAN = 4
"""A scan of the guided search finds at least what so many iterations of Algorithm 1 do (docs/performance.md)."""
MIN_SEPARATION = 5


@dataclass(kw_only=True, eq=False, repr=False)
class ScramSettings(CommonSettings):
    """Defaults of `scram_attention`."""

    k: int = 3
    selection: Literal["max", "mode"] | None = None
    separation: int | Sequence[int] | None = None
    expand: int | Sequence[int] = 0
    patch_size: int | Sequence[int] = 1
    similarity: SimilarityName | Similarity = "scaled_dot"
    temperature: float = 1.0
    weighting: Weighting | None = None
    normalization: Normalization = "sum"
    estimator: Literal["snis", "mh"] | None = None
    samples: int = 64
    scale: float | Sequence[float] = 2.0
    alpha: float = 0.5
    chains: int = 1
    iterations: int = 8


class ScramOptions(CommonOptions, FieldCall, total=False):
    """The types of all that `scram_attention` takes by keyword."""

    k: int
    selection: Literal["max", "mode"] | None
    separation: int | Sequence[int] | None
    expand: int | Sequence[int]
    patch_size: int | Sequence[int]
    similarity: SimilarityName | Similarity
    temperature: float
    weighting: Weighting | None
    normalization: Normalization
    estimator: Literal["snis", "mh"] | None
    samples: int
    scale: float | Sequence[float]
    alpha: float
    chains: int
    iterations: int


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


@overload
def scram_attention(
    query: Features, key: Features, value: Features, *, return_field: Literal[False] = False,
    return_diagnostics: Literal[False] = False, **options: Unpack[ScramOptions],
) -> Tensor: ...  # fmt: skip
@overload
def scram_attention(
    query: Features, key: Features, value: Features, *, return_field: Literal[True],
    return_diagnostics: Literal[False] = False, **options: Unpack[ScramOptions],
) -> tuple[Tensor, MatchField]: ...  # fmt: skip
@overload
def scram_attention(
    query: Features, key: Features, value: Features, *, return_field: Literal[False] = False,
    return_diagnostics: Literal[True], **options: Unpack[ScramOptions],
) -> tuple[Tensor, ScramDiagnostics]: ...  # fmt: skip
@overload
def scram_attention(
    query: Features, key: Features, value: Features, *, return_field: Literal[True],
    return_diagnostics: Literal[True], **options: Unpack[ScramOptions],
) -> tuple[Tensor, MatchField, ScramDiagnostics]: ...  # fmt: skip
@overload
def scram_attention(
    query: Features, key: Features, value: Features, *, return_field: bool = False,
    return_diagnostics: bool = False, **options: Unpack[ScramOptions],
) -> Any: ...  # fmt: skip


@shows(ScramSettings)
def scram_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"],
    value: Float[Tensor, "value_batch value_channels *value"],
    *,
    field: MatchField | None = None,
    return_field: bool = False,
    return_diagnostics: bool = False,
    init: MatchField | None = None,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Any,
) -> Any:
    r"""Attend from every query to the keys around its k best, or estimate full attention by sampling from there.

    $$\hat o_i = \sum_{j \in \hat J_i} \hat p_{ij} v_j, \qquad
    \hat p_{ij} = \frac{\exp(s_{ij} / \tau)}{\sum_{l \in \hat J_i} \exp(s_{il} / \tau)}, \qquad
    s_{ij} = \frac{q_i \cdot k_j}{\sqrt{d_k}}$$

    SCRAM's equations (1), (8) and (9): q, k, v and o are the vectors of `query`, `key`, `value` and of the output, d_k
    the channels of a head, tau the `temperature` (1 in the paper), J_i the keys kept for query i. These are its kappa
    = `k` best keys (Algorithm 1; `selection="max"`: top-kappa(max), equation (7)), or the best of them that are L =
    `separation` apart (`"mode"`: top-kappa(mode)), each with the (2b + 1)^D keys around it, b = `expand` (Algorithm 2).
    J_i is a set: a key reached twice counts once. With `k=1, expand=0` the output is the value at the best key.

    Any similarity may take the place of the scaled dot product, and any f that of the exponential (non-local means,
    equation (4)):

    $$y_i = \frac{1}{C_i} \sum_{j \in \hat J_i} f(s_{ij} / \tau)\, v_j$$

    with f our `weighting` and C our `normalization` (equations (5) and (6) are the exponential and its sum). Classical
    non-local means is `patch_size=7, similarity="l2", temperature=h**2`.

    What is left out biases this (equation (10)). `estimator="snis"` and `"mh"` estimate the sum over all keys instead,
    from `samples` keys drawn around the modes; see `importance_estimate` and `chain_estimate` in
    `patchattn.attention.monte_carlo` for equations (11) to (14) and (17).

    Memory is linear in the pixels. Gradients flow to query, key and value (keys and samples held fixed), are the
    same from run to run, can be differentiated again, and taken in forward mode.

    Args:
        query: `(B, C, *query)`, one to three spatial dimensions; float16, bfloat16, float32 or float64. Sums are taken
            in float32 at least.
        key: `(B or 1, C, *key)`.
        value: `(B or 1, Cv, *(r key))` with r a whole number: for r > 1 each key brings its block of r pixels in each
            dimension, and the output is r times the query's size.
        k: kappa.
        selection: `"max"` or `"mode"`; None: `"mode"` for an estimator, else `"max"`.
        separation: L, in pixels, for all dimensions or one for each: two keys of one query differ by it in at least one
            dimension. Only for `"mode"`. None: 2 expand + 1 (neighborhoods do not overlap), but at least 5.
        expand: b, for all dimensions or one for each. What lies outside the image or is masked is left out.
        patch_size: 1 compares single vectors, as the paper does.
        similarity, temperature, num_heads: as in `patch_attention`.
        weighting: f, a differentiable function of a tensor of similarities (over the temperature); None: the
            exponential.
        normalization: C: `"sum"` of the f, `"count"` of the keys, `"none"` (1), or a function from f, `(B, heads,
            keys, *query)` with 0 for no key, to `(B, heads, *query)`. Where C is 0 the output is 0.
        estimator: None: equations (8) and (9); `"snis"`: self-normalized importance sampling; `"mh"`:
            Metropolis-Hastings. These take no `expand` and no `weighting`.
        samples: T, for each query. `"mh"` rounds it up to k * chains chains of equal length.
        scale: phi, the length-scale of the Gaussian around a mode, in pixels, for all dimensions or one for each.
        alpha: share of the samples drawn around the modes; the others are drawn evenly from all keys (`"snis"`).
        chains: from each mode (`"mh"`).
        field: use these matches (modes) instead of searching, as far as masks, offsets and causality admit them; k and
            the search's arguments are then not used.
        return_field: also return the field.
        return_diagnostics: also return `ScramDiagnostics`.
        method: as in `match`. `"repeated"` is Algorithm 1 as printed, k runs each excluding what earlier runs took,
            `"patchmatch"` the same in one run with a list of k. `"guided"` is faster and better than both
            (docs/performance.md), so `"auto"`, the default, is guided; exact for small keys; and where `is_causal`
            the better of the two: PatchMatch with a list for `"max"`, in repeated runs for `"mode"`.
        iterations: T of Algorithm 1. Guided search makes one scan for every four.
        seed: of all random numbers.
        init, query_mask, key_mask, max_offset, padding_mode, backend: see `match`. Masks and offsets limit what is
            attended to, also by expansion and by sampling.
        is_causal: no key after the query, row by row, is looked at or used, in search, expansion and sampling (section
            4.2.1); `"strict"`: nor the one at its own position. A query without any key gets 0. With patches beyond
            single positions the features themselves look ahead.

    Returns:
        `(B, Cv, *(r query))` in the dtype of value; with `return_field` or `return_diagnostics` a tuple of it and
        these.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load; or gradients of a pointwise similarity without a derivative.

    Example:
        >>> import torch
        >>> from patchattn import scram_attention
        >>> query, key, value = torch.rand(3, 1, 16, 32, 32)
        >>> scram_attention(query, key, value, k=4, expand=1).shape
        torch.Size([1, 16, 32, 32])
        >>> output, diagnostics = scram_attention(
        ...     query, key, value, k=4, estimator="snis", samples=32, return_diagnostics=True
        ... )
        >>> diagnostics.effective_sample_size.shape
        torch.Size([1, 1, 32, 32])
    """
    settings = settings_from(ScramSettings, options, "scram_attention")
    query, key, value = promote(query, key, value)
    comparison = _compare(query, key, settings, query_mask, key_mask)
    checked = _check(settings, query.dim() - 2)
    check_features("value", value, query, "query")
    check_heads("value", value, comparison.geometry.num_heads)
    ratio = value_ratio(key, value)
    if field is None:
        field = find_field(query, key, _modes(comparison, settings, checked), init)
        found, modes = field.similarity, field.index
    else:
        check_field("field", field, query, key, comparison.geometry.num_heads)
        # It may come from a search under other constraints, or hold a key twice.
        found, modes = None, comparison.expand(field.index, (0,) * (query.dim() - 2))

    blocks, estimate = unfold_blocks(value, ratio), _estimate(comparison, modes, found, settings, checked)
    weights = None
    if _is_softmax(settings):
        window = (1,) * (query.dim() - 2)
        output = attend(estimate.score, estimate.keys, blocks, window, 1.0, comparison.backend)
        if return_diagnostics:
            weights = normalized(estimate.score.detach())
    else:
        weighting = torch.exp if settings.weighting is None else settings.weighting
        weights = _weights_of(estimate.score, weighting, settings.normalization)
        # A weight of 0 would not silence a value of NaN.
        counted = torch.where(estimate.score > -torch.inf, estimate.keys, -1)
        output = weighted_sum(weights, counted, blocks, comparison.backend)

    results: tuple[Any, ...] = (fold_blocks(output, ratio),)
    if return_field:
        results += (field,)
    if weights is not None and return_diagnostics:
        results += (_diagnostics(estimate, weights, blocks, output, ratio),)
    return results if len(results) > 1 else results[0]


@dataclass(frozen=True)
class _Estimate:
    """The keys that an output is computed from."""

    keys: Tensor
    """`(B, heads, any number, *query)`; -1 for none."""
    score: Tensor
    """Logarithms of their weights, likewise."""
    is_sampled: bool = False
    chains: int | None = None
    """Markov chains that they are the states of."""
    acceptance: Tensor | None = None


def _is_softmax(settings: ScramSettings) -> bool:
    return settings.weighting is None and settings.normalization == "sum"


@dataclass(frozen=True)
class _Checked:
    """The settings that describe which keys are used, checked."""

    radius: tuple[int, ...]
    """Reach of `expand` in each dimension."""
    separation: tuple[int, ...]
    temperature: float
    scale: tuple[float, ...]
    alpha: float
    samples: int
    chains: int
    seed: int


def _check(settings: ScramSettings, dims: int) -> _Checked:
    """Check the settings that do not depend on the tensors."""
    _check_normalization(settings.normalization)
    radius = per_dimension("expand", settings.expand, dims, 0)
    _check_estimator(settings.estimator, radius, _is_softmax(settings))
    return _Checked(
        radius,
        _separation(settings.selection, settings.separation, settings.estimator, radius),
        check_positive("temperature", settings.temperature),
        positive_per_dimension("scale", settings.scale, dims),
        check_share("alpha", settings.alpha),
        check_count("samples", settings.samples, 1),
        check_count("chains", settings.chains, 1),
        check_count("seed", settings.seed, 0),
    )


def _compare(
    query: Tensor, key: Tensor, settings: ScramSettings, query_mask: Tensor | None, key_mask: Tensor | None
) -> Comparison:
    """Check query, key and who of them may be compared."""
    geometry = define_geometry(query, key, settings, settings.patch_size, settings.similarity)
    constraints = define_constraints(query, key, settings, geometry, query_mask, key_mask)
    return Comparison(query, key, geometry, constraints, resolve_backend(settings.backend, query))


def _modes(comparison: Comparison, settings: ScramSettings, checked: _Checked) -> Problem:
    """The search for the best keys, or the best that are apart."""
    k, constraints = check_k(settings.k, comparison.query, comparison.key), comparison.constraints
    if k > 1:
        constraints = replace(constraints, min_separation=checked.separation)
    method, iterations = _check_search(settings.method, settings.iterations, constraints.is_causal)
    strategy = Strategy(method, iterations, ceil(iterations / ITERATIONS_A_SCAN), None, checked.seed)
    return Problem(k, comparison.geometry, constraints, strategy, comparison.backend)


def _estimate(
    comparison: Comparison, modes: Tensor, found: Tensor | None, settings: ScramSettings, checked: _Checked
) -> _Estimate:
    """The keys around the modes, or keys drawn from there; `found` are the similarities of the modes, if known."""
    radius, scale, temperature = checked.radius, checked.scale, checked.temperature
    if settings.estimator is None:
        keys = comparison.expand(modes, radius) if any(radius) else modes
        # One key alone has weight 1 whatever its similarity: nothing to differentiate.
        trains = comparison.trains and (keys.shape[2] > 1 or not _is_softmax(settings))
        if found is None or any(radius) or trains:
            found = comparison.similarity_at(keys)
        return _Estimate(keys, found / temperature)
    if settings.estimator == "snis":
        mixture = Mixture(scale, checked.alpha, checked.samples, checked.seed)
        return _Estimate(*importance_estimate(comparison, modes, temperature, mixture), is_sampled=True)
    starts = modes.shape[2] * checked.chains
    chains = Chains(scale, temperature, checked.chains, ceil(checked.samples / starts), checked.seed)
    keys, score, acceptance = chain_estimate(comparison, modes, chains)
    return _Estimate(keys, score, True, starts, acceptance)


def _check_estimator(estimator: str | None, radius: tuple[int, ...], plain: bool) -> None:
    """Refuse an estimator beside what it replaces."""
    check_choice("estimator", estimator, (None, "snis", "mh"))
    if estimator is None:
        return
    if any(radius):
        raise ValueError(
            f"expand: estimator={estimator!r} draws keys around the modes itself; leave expand at 0 (scale says how "
            f"far it draws), got {radius}."
        )
    if not plain:
        raise ValueError(
            f"weighting, normalization: estimator={estimator!r} estimates the softmax over all keys; leave both out, "
            "or the estimator."
        )


def _check_normalization(normalization: Any) -> None:
    if not callable(normalization):
        check_choice("normalization", normalization, ("sum", "count", "none"))


def _separation(
    selection: str | None, separation: int | Sequence[int] | None, estimator: str | None, radius: tuple[int, ...]
) -> tuple[int, ...]:
    """L for each dimension; 0 where matches need not be apart."""
    check_choice("selection", selection, (None, "max", "mode"))
    if selection == "mode" or (selection is None and estimator is not None):
        if separation is None:
            return tuple(max(2 * b + 1, MIN_SEPARATION) for b in radius)
        return per_dimension("separation", separation, len(radius), 0)
    if separation is not None:
        raise ValueError(f"separation: got {separation!r}, which only selection='mode' keeps; got {selection!r}.")
    return (0,) * len(radius)


def _check_search(method: str | SearchMethod, iterations: int, causal: bool) -> tuple[str, int]:
    """The method's name, and T as a Python number, if there is such a search."""
    iterations = check_count("iterations", iterations, 0)
    name, _ = check_method(method, None)
    if name == "guided" and causal:
        raise ValueError(
            "method: 'guided' makes its tree of all keys, so that later ones would decide which earlier ones it finds; "
            "with is_causal use 'patchmatch', 'repeated', 'exact' or 'auto'."
        )
    return name, iterations


def _weights_of(score: Tensor, weighting: Weighting, normalization: Any) -> Tensor:
    """f(s) / C(f), 0 where there is no key."""
    exists = score > -torch.inf
    best = score.detach().amax(2, keepdim=True)
    # f is never asked about minus infinity: 0 times an infinite derivative would not be 0.
    known = torch.where(exists, score, torch.where(best > -torch.inf, best, 0))
    weight = torch.where(exists, weighting(known), 0)
    if callable(normalization):
        constant = normalization(weight)
    elif normalization == "sum":
        constant = weight.sum(2)
    elif normalization == "count":
        constant = exists.sum(2).to(weight.dtype)
    else:
        return weight
    constant = constant.unsqueeze(2)
    return torch.where(constant != 0, weight / torch.where(constant != 0, constant, 1), 0)


@torch.no_grad()
def _diagnostics(estimate: _Estimate, weights: Tensor, blocks: Tensor, output: Tensor, ratio: int) -> ScramDiagnostics:
    value, weights = blocks.detach().to(weights.dtype), weights.detach()
    if estimate.chains is not None:
        agreement = fold_blocks(r_hat(estimate.keys, value, estimate.chains), ratio)
        return ScramDiagnostics(estimate.keys, weights, acceptance_rate=estimate.acceptance, r_hat=agreement)
    if estimate.is_sampled:
        variance = estimator_variance(weights, estimate.keys, value, output.detach().to(weights.dtype))
        return ScramDiagnostics(estimate.keys, weights, fold_blocks(variance, ratio), effective_sample_size(weights))
    return ScramDiagnostics(estimate.keys, weights)


@dataclass(kw_only=True, eq=False, repr=False)
class ScramAttention(ScramSettings, AttentionLayer):
    """`scram_attention` as a layer without parameters: `layer(query, key, value)`.

    The arguments are those of `scram_attention`; those that belong to one call (field, init, masks, return_field,
    return_diagnostics) are given to the call.

    Example:
        >>> import torch
        >>> from patchattn import ScramAttention
        >>> layer = ScramAttention(k=4, selection="mode", expand=1, num_heads=2, is_causal=True)
        >>> features = torch.rand(2, 16, 32, 32)
        >>> layer(features, features, features).shape
        torch.Size([2, 16, 32, 32])
    """

    function = staticmethod(scram_attention)
    shown = (
        "k", "selection", "expand", "similarity", "temperature", "num_heads", "estimator", "is_causal", "method",
    )  # fmt: skip

    if TYPE_CHECKING:

        @overload
        def __call__(
            self, query: Tensor, key: Tensor, value: Tensor, *, return_field: Literal[False] = False,
            return_diagnostics: Literal[False] = False, **call: Unpack[FieldCall],
        ) -> Tensor: ...  # fmt: skip
        @overload
        def __call__(
            self, query: Tensor, key: Tensor, value: Tensor, *, return_field: bool = False,
            return_diagnostics: bool = False, **call: Unpack[FieldCall],
        ) -> Any: ...  # fmt: skip
        def __call__(
            self, query: Tensor, key: Tensor, value: Tensor, *, return_field: bool = False,
            return_diagnostics: bool = False, **call: Unpack[FieldCall],
        ) -> Any: ...  # fmt: skip
