"""Patch-based stochastic attention (PSAL)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.attention.blocks import fold_blocks, unfold_blocks, value_ratio
from patchattn.attention.layer import AttentionLayer, learnable
from patchattn.attention.precision import promote
from patchattn.attention.scoring import Bias, define_scoring
from patchattn.attention.transformed import attend_on_canvas
from patchattn.checks import check_count, check_features, check_heads
from patchattn.field import MatchField
from patchattn.matching.canvas import canvas_of, define_canvas
from patchattn.matching.define import define_geometry, define_problem, resolve_backend
from patchattn.matching.match import check_field, find_field, find_transformed
from patchattn.matching.prepared_key import PreparedKey, resolve_key
from patchattn.ops.attend import attend
from patchattn.ops.attend_similar import attend_similar
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.transforms import differentiates
from patchattn.settings import SearchOptions, SearchSettings, settings_from, shows

__all__ = ["FieldCall", "PatchAttention", "PatchOptions", "PatchSettings", "patch_attention"]

Features = Float[Tensor, "batch channels *spatial"]
Keys = Features | PreparedKey


@learnable("temperature", "bias")
@dataclass(kw_only=True, eq=False, repr=False)
class PatchSettings(SearchSettings):
    """Defaults of `patch_attention`: three matches, as in the paper (more brought no gain there)."""

    k: int = 3
    patch_size: int | Sequence[int] = 7
    temperature: float | Tensor = 1.0
    bias: Bias | None = None
    candidates: int | None = None
    aggregate: bool = False


class FieldCall(TypedDict, total=False):
    """The types of what belongs to one call of a layer with a search."""

    field: MatchField | None
    init: MatchField | None
    query_mask: Tensor | None
    key_mask: Tensor | None


class PatchOptions(SearchOptions, FieldCall, total=False):
    """The types of all that `patch_attention` takes by keyword."""

    temperature: float | Tensor
    bias: Bias | None
    candidates: int | None
    aggregate: bool


@overload
def patch_attention(
    query: Features, key: Keys, value: Features, *, return_field: Literal[False] = False,
    **options: Unpack[PatchOptions],
) -> Tensor: ...  # fmt: skip
@overload
def patch_attention(
    query: Features,
    key: Keys,
    value: Features,
    *,
    return_field: Literal[True],
    **options: Unpack[PatchOptions],
) -> tuple[Tensor, MatchField]: ...
@overload
def patch_attention(
    query: Features,
    key: Keys,
    value: Features,
    *,
    return_field: bool,
    **options: Unpack[PatchOptions],
) -> Tensor | tuple[Tensor, MatchField]: ...


@shows(PatchSettings)
def patch_attention(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"] | PreparedKey,
    value: Float[Tensor, "value_batch value_channels *value"],
    *,
    field: MatchField | None = None,
    return_field: bool = False,
    init: MatchField | None = None,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Any,
) -> Tensor | tuple[Tensor, MatchField]:
    r"""Attend from every query position to its k best matching key positions, anywhere in the image.

    $$O_i = \sum_{j \in \psi(i)} A_{ij} V_j, \qquad
    A_{ij} = \frac{\exp(S_{ij} / \tau)}{\sum_{j' \in \psi(i)} \exp(S_{ij'} / \tau)}, \qquad S_{ij} = s(Q_i, K_j)$$

    PSAL's equations (4), (5) and (9): Q_i and K_j are our patches of `query` and `key` around i and j, V_j the pixels
    of `value`, psi the field found by `match`, tau the `temperature`, k = |psi(i)|. With `aggregate=True`, equation
    (10) (PSAL Aggreg.): for every spatial neighbor i' of i within the patch window, each match j' of i' votes for the
    key j = j' + (i - i') with S = s(Q_i', K_j'). Votes that leave the key's domain do not count; two votes for one key
    stay two. With a `bias` b the exponents are S / tau + b.

    Memory is linear in the pixels, forward and backward. Gradients flow to query, key and value (equations (6) to (8),
    the matches held fixed) and are the same from run to run; they can be differentiated again, and taken in forward
    mode. With k = 1 and no aggregation the only weight is 1 whatever the similarity, so that there is a gradient with
    respect to value alone (section 3.4).

    Args:
        query: `(B, C, *query)`, one to three spatial dimensions; float16, bfloat16, float32 or float64. Sums are taken
            in float32 at least. Under autocast, arguments of different precision are brought to the highest among them.
        key: `(B or 1, C, *key)`; or what `prepare` returned, for a key of many calls.
        value: `(B or 1, Cv, *(r key))` with r a whole number. For r > 1 each match brings its block of r pixels in each
            dimension, and the output is r times the query's size.
        k: matches for each query (3, as in the paper: more brought no gain there).
        patch_size: odd; one for all dimensions or one for each.
        similarity: `"l2"`, `"l1"`, `"dot"`, `"scaled_dot"`, `"cosine"` or an object made by `pointwise_similarity`;
            see `match`.
        temperature: tau, above 0; smaller is sharper. A number; or a tensor, which may be learned: `(heads,)`, or of a
            shape that can be broadcast to `(B, heads, *query)`. Under aggregation a vote keeps the temperature of the
            neighbor whose match it is.
        bias: b, added to the scores S / tau, and learned with them; -inf excludes a match. A table of relative offsets
            `(heads or 1, 2 r1 + 1, ...)`, whose entry at r + (j - i) is read, as in Swin Transformers: it must know
            all offsets, so that `max_offset` is at most r, unless the key is no larger. Or a function of the
            `MatchField`, which returns what can be broadcast to `(B, heads, k, *query)`: of `field.offsets()`,
            `field.coordinates()` or `field.index` (where there is no match, it is not looked at). Under aggregation
            a vote keeps the bias of the neighbor's match, whose offset is the vote's own.
        candidates: matches are found by their similarity, without the bias; search for so many, and keep the k of
            highest score. With as many as keys are allowed (and `method="exact"`), these are the k best by score;
            with k of them nothing is left out, as in a window. None: k.
        aggregate: let the matches of the patch neighborhood vote.
        num_heads: the channels of query and key, and those of value, are split into so many groups.
        field: use this field instead of searching; k and the search's arguments are then not used.
        return_field: also return the field, to use again (`field=`) or to start the next search from (`init=`).
        rotations, scales, mirror: let matches be rotated, scaled and mirrored; see `match`. Values are sampled through
            the match's transform: a vote moves in the key as the transform says, and a block of r pixels is turned. The
            transforms are held fixed in gradients, as positions are.
        method, iterations, seed, init, query_mask, key_mask, is_causal, min_separation, max_offset, padding_mode,
            backend: see `match`. Masks, causality and offsets limit whose patches match; under aggregation the pixels
            of a matched patch may vote even where the mask is False.

    Returns:
        `(B, Cv, *(r query))` in the dtype of value; 0 where a query has no match and hears no vote. With
        `return_field=True` the pair of it and the `MatchField`.

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load; or gradients of a pointwise similarity without a derivative.

    Example:
        >>> import torch
        >>> from patchattn import patch_attention
        >>> query, key = torch.rand(1, 16, 32, 32), torch.rand(1, 16, 24, 40)
        >>> value = torch.rand(1, 3, 24, 40)
        >>> patch_attention(query, key, value, k=3, patch_size=7, aggregate=True).shape
        torch.Size([1, 3, 32, 32])
    """
    key, key_mask, given, kept = resolve_key(key, key_mask, options)
    settings = settings_from(PatchSettings, given, "patch_attention")
    query, key, value = promote(query, key, value)
    if field is None:
        problem = define_problem(query, key, settings, query_mask, key_mask)
        if settings.candidates is not None:
            problem = replace(problem, k=_check_candidates(settings.candidates, settings.bias, problem.k))
        geometry, backend, limit = problem.geometry, problem.backend, problem.constraints.max_offset
        canvas = define_canvas(query, key, settings, problem)
    else:
        geometry = define_geometry(query, key, settings, settings.patch_size, settings.similarity)
        backend, limit = resolve_backend(settings.backend, query), None
        check_field("field", field, query, key, geometry.num_heads)
        canvas = canvas_of(field, geometry, backend)
    check_features("value", value, query, "query")
    check_heads("value", value, geometry.num_heads)
    scoring = define_scoring(
        settings.temperature, settings.bias, query=query, key_size=tuple(key.shape[2:]), num_heads=geometry.num_heads,
        backend=backend, limit=limit, field=field,
    )  # fmt: skip
    ratio, found = value_ratio(key, value), None
    if field is None:
        with kept:
            if canvas is None:
                field = find_field(query, key, problem, init)
            else:
                field = find_transformed(query, key, problem, canvas, key_mask, init)
        if settings.candidates is not None:
            field = scoring.best(field, settings.k)
        found = field.similarity
    # One match alone has weight 1 whatever its similarity: nothing to differentiate.
    trains = (settings.aggregate or field.k > 1) and differentiates(query, key)
    window = geometry.patch_size if settings.aggregate else (1,) * len(geometry.patch_size)
    q, kk = (query, key) if trains else (query.detach(), key.detach())
    temperature = scoring.number
    if canvas is not None:
        if temperature is None:
            raise ValueError(
                "temperature, bias: got a tensor or a bias, and matches that are rotated, scaled or mirrored; expected "
                "a number, and no bias. Weigh the field's `similarity` and what `gather` brings yourself."
            )
        known = found is not None and not trains
        output, found = attend_on_canvas(
            q, kk, value, field, canvas, geometry, window, temperature, ratio, similarity_is_known=known
        )
        return (output, replace(field, similarity=found.detach())) if return_field else output
    blocks = unfold_blocks(value, ratio)
    if temperature is None:
        if found is None or trains:
            found = similarity_at(q, kk, field.index, geometry, backend)
        output = attend(scoring(found, field.index), field.index, blocks, window, 1.0, backend)
    elif found is None or trains:
        output, found = attend_similar(q, kk, blocks, field.index, geometry, window, temperature, backend)
    else:
        output = attend(found, field.index, blocks, window, temperature, backend)
    output = fold_blocks(output, ratio)
    if return_field:
        return output, MatchField(field.index, found.detach(), field.key_shape)
    return output


def _check_candidates(candidates: int, bias: Bias | None, k: int) -> int:
    """Return the number of matches to search for, where k of them are kept."""
    if bias is None:
        raise ValueError(
            f"candidates: got {candidates!r}, of which a bias chooses; without one the best by similarity are "
            "those of k alone."
        )
    return check_count("candidates", candidates, k)


@dataclass(kw_only=True, eq=False, repr=False)
class PatchAttention(PatchSettings, AttentionLayer):
    """`patch_attention` as a layer: `layer(query, key, value)`.

    The arguments are those of `patch_attention`; those that belong to one call (field, init, masks, return_field) are
    given to the call. It has parameters only if it is given some: temperature and bias may be `torch.nn.Parameter`, and
    bias a `torch.nn.Module` that is called with the field.

    Example:
        >>> import torch
        >>> from patchattn import PatchAttention
        >>> layer = PatchAttention(k=3, patch_size=7, aggregate=True)
        >>> features = torch.rand(2, 16, 32, 32)
        >>> layer(features, features, features).shape
        torch.Size([2, 16, 32, 32])
        >>> table = torch.nn.Parameter(torch.zeros(4, 7, 7))
        >>> window = PatchAttention(k=49, patch_size=1, similarity="scaled_dot", num_heads=4, max_offset=3, bias=table)
        >>> sum(parameter.numel() for parameter in window.parameters())
        196
    """

    function = staticmethod(patch_attention)
    shown = ("k", "patch_size", "similarity", "temperature", "aggregate", "num_heads", "method")

    if TYPE_CHECKING:

        @overload
        def __call__(
            self, query: Tensor, key: Keys, value: Tensor, *, return_field: Literal[False] = False,
            **call: Unpack[FieldCall],
        ) -> Tensor: ...  # fmt: skip
        @overload
        def __call__(
            self,
            query: Tensor,
            key: Keys,
            value: Tensor,
            *,
            return_field: Literal[True],
            **call: Unpack[FieldCall],
        ) -> tuple[Tensor, MatchField]: ...
        def __call__(
            self,
            query: Tensor,
            key: Keys,
            value: Tensor,
            *,
            return_field: bool = False,
            **call: Unpack[FieldCall],
        ) -> Tensor | tuple[Tensor, MatchField]: ...
