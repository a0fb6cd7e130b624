"""Spatially coherent randomized attention (SCRAM): the best keys, their surroundings, and estimates of all the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.attention.blocks import fold_blocks, unfold_blocks, value_ratio
from patchattn.attention.layer import AttentionLayer
from patchattn.attention.monte_carlo import normalized
from patchattn.attention.patch import FieldCall
from patchattn.attention.precision import promote
from patchattn.attention.scram_diagnostics import ScramDiagnostics, diagnostics_of
from patchattn.attention.scram_keys import compare, estimate_of, modes_problem, scoring_of
from patchattn.attention.scram_settings import ScramOptions, ScramSettings, check_settings, is_softmax
from patchattn.attention.weighting import weights_of
from patchattn.checks import check_features, check_heads
from patchattn.field import MatchField
from patchattn.matching.match import check_field, find_field, refuse_transform
from patchattn.ops.attend import attend
from patchattn.ops.weighted_sum import weighted_sum
from patchattn.settings import settings_from, shows

__all__ = ["ScramAttention", "ScramDiagnostics", "ScramOptions", "ScramSettings", "scram_attention"]

Features = Float[Tensor, "batch channels *spatial"]


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
        similarity, num_heads: as in `patch_attention`.
        temperature, bias: as in `patch_attention`; `"mh"` takes a number as temperature, and no bias. The search for
            the k best keys (modes) does not know the bias; the weights of all keys do.
        weighting: f, a differentiable function of a tensor of scores (similarities over the temperature, plus the
            bias); None: the exponential.
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
    comparison = compare(query, key, settings, query_mask, key_mask)
    checked, scoring = check_settings(settings, query.dim() - 2), scoring_of(comparison, settings)
    check_features("value", value, query, "query")
    check_heads("value", value, comparison.geometry.num_heads)
    ratio = value_ratio(key, value)
    if field is None:
        field = find_field(query, key, modes_problem(comparison, settings, checked), init)
        found, modes = field.similarity, field.index
    else:
        check_field("field", field, query, key, comparison.geometry.num_heads)
        refuse_transform("field", field, "use patch_attention, or search without transforms")
        # It may come from a search under other constraints, or hold a key twice.
        found, modes = None, comparison.expand(field.index, (0,) * (query.dim() - 2))

    blocks = unfold_blocks(value, ratio)
    estimate = estimate_of(comparison, modes, found, scoring, settings, checked)
    weights = None
    if is_softmax(settings):
        window = (1,) * (query.dim() - 2)
        output = attend(estimate.score, estimate.keys, blocks, window, 1.0, comparison.backend)
        if return_diagnostics:
            weights = normalized(estimate.score.detach())
    else:
        weighting = torch.exp if settings.weighting is None else settings.weighting
        weights = weights_of(estimate.score, weighting, settings.normalization)
        # A weight of 0 would not silence a value of NaN.
        counted = torch.where(estimate.score > -torch.inf, estimate.keys, -1)
        output = weighted_sum(weights, counted, blocks, comparison.backend)

    results: tuple[Any, ...] = (fold_blocks(output, ratio),)
    if return_field:
        results += (field,)
    if weights is not None and return_diagnostics:
        results += (diagnostics_of(estimate, weights, blocks, output, ratio),)
    return results if len(results) > 1 else results[0]


@dataclass(kw_only=True, eq=False, repr=False)
class ScramAttention(ScramSettings, AttentionLayer):
    """`scram_attention` as a layer: `layer(query, key, value)`.

    The arguments are those of `scram_attention`; those that belong to one call (field, init, masks, return_field,
    return_diagnostics) are given to the call. Its only parameters are those that it is given, as in `PatchAttention`.

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
