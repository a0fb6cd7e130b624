"""`match`: the k most similar key positions of every query position."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from typing_extensions import Unpack

from patchattn.field import MatchField
from patchattn.matching.canvas import Canvas, check_transform, define_canvas
from patchattn.matching.define import define_problem
from patchattn.matching.indices import check_positions
from patchattn.matching.prepared_key import PreparedKey, resolve_key
from patchattn.ops.search import search
from patchattn.problem import Problem
from patchattn.settings import SearchOptions, SearchSettings, settings_from, shows

__all__ = ["check_field", "find_field", "find_transformed", "match", "refuse_transform"]


@shows(SearchSettings)
def match(
    query: Float[Tensor, "batch channels *query"],
    key: Float[Tensor, "key_batch channels *key"] | PreparedKey,
    *,
    init: MatchField | None = None,
    query_mask: Bool[Tensor, "mask_batch *query"] | None = None,
    key_mask: Bool[Tensor, "mask_batch2 *key"] | None = None,
    **options: Unpack[SearchOptions],
) -> MatchField:
    r"""Find, for every query position, the k key positions whose patches are most similar, anywhere in the image.

    $$\psi(i) = \operatorname*{arg\,max}_{|J| = k} \sum_{j \in J} s(Q_i, K_j)$$

    (equation (2) of PSAL for k = 1, equation (7) of SCRAM for any k: their Q_i, K_j are our patches of query and key
    around i and j, their m and n the numbers of query and key positions, SCRAM's kappa our k, its L our
    `min_separation`). The result depends on the arguments and `seed` alone. There are no gradients: matches are
    positions.

    Args:
        query: `(B, C, *spatial)`, one to three spatial dimensions; float16, bfloat16, float32 or float64. Sums are
            taken in float32 at least. Three dimensions are sequences `(B, C, length)`; where they look like an image
            `(C, H, W)` a warning asks. There may be no queries, and nothing in the batch.
        key: `(B, C, *spatial)`, of any spatial size; batch size 1 is shared by all queries. Or what `prepare` returned,
            for a key of many searches: the matches are the same, and what it was prepared for need not be said again.
        k: matches for each query; where there are fewer keys, the places left hold -1.
        patch_size: odd, in pixels; one for all dimensions or one for each. 1 compares single positions.
        similarity: larger is better. `"l2"`: minus the sum over patch and channels of (q - k)^2; `"l1"`: minus that of
            |q - k|; `"dot"`: sum of q k; `"scaled_dot"`: that over the square root of the number of elements of a
            patch (of one head); `"cosine"`; or what `pointwise_similarity` or `register_similarity` returned, or the
            name given to the latter.
        num_heads: the channels are split into so many equal groups, each with a field of its own.
        method: `"exact"` looks at all keys, a block at a time, and finds what brute force in float64 finds, whatever
            the features' range. `"guided"` reduces patches to a few numbers, asks a k-d
            tree and the neighbors where to look, and measures the best in full. Where the numbers hold less than 40 %
            of the keys' variance (white noise) it runs PatchMatch instead, 5 iterations at least; where they cannot
            rank (`"l1"`, a similarity of your own) PatchMatch improves what they give. `"patchmatch"` is Algorithm 1
            of both papers, with a list of k matches; `"repeated"` the same as SCRAM has it, k runs for one match each,
            every run excluding what the runs before it took. `"auto"` is exact for small keys, where that takes
            milliseconds, and guided for the rest. Where k is so large that whole rows of similarities are sorted sooner
            than lists kept (k^2 times the scans at least 32 times the number of keys; not with `"l1"`, a similarity of
            your own, `min_separation` or `max_offset`), `"guided"` and `"auto"` are exact too. In a
            compiled or exported graph all this is decided in every call. Or what `register_method` returned, or its
            name.
        iterations: scans of the guided search, None: 2; or of PatchMatch (of each run), None: 5. With 0, `init` is only
            added to (by the tree, or at random).
        seed: of the random numbers.
        init: a field to start from, of an earlier frame or training step, with any number of matches.
        query_mask: `(B or 1, *spatial)`, False: this query gets no match. Of every second query (a lattice) the guided
            search finds with two scans about what it finds with one of all: they hear from the next but one.
        key_mask: `(B or 1, *spatial)`, False: no query matches this key.
        is_causal: match only keys at or before the query, row by row (`"strict"`: before it); query and key must have
            one size. Exact search and PatchMatch then look at nothing that comes later: with single positions as
            patches, no match depends on later features. The projection and the tree of guided search are made of all
            keys, so that which earlier ones it finds depends on later ones, and `"auto"` is PatchMatch (`"repeated"`
            with `min_separation`).
        min_separation: the matches of one query are at least so far apart, in pixels, in the maximum norm (one for each
            dimension: apart by that in at least one of them). Matches are always distinct.
        max_offset: a match is at most so far from the query's own position, in pixels, in each dimension. If query and
            key differ in size, from the key position floor((2 q + 1) N_key / (2 N_query)).
        rotations: angles in degrees by which a match's patch may be rotated in the key beside the query's,
            counterclockwise; None: (0,). A patch of 7 pixels bears some 8 degrees: steps of 15 find any angle.
        scales: how many times as large as the query's the match's patch may be, 0.1 to 10; None: (1,). Steps of a
            quarter find any scale.
        mirror: also match patches mirrored left to right. All combinations of mirroring, scales and rotations are
            searched, and 0 and 1 only if they are given. Images (two dimensions) only, not with `is_causal`,
            `min_separation`, `max_offset` or a prepared key; sizes are then fixed in a graph.
        padding_mode: what a patch reads outside the image; `"valid"`: only patches inside the image take part.
        backend: `"cpu"` (Numba), `"gpu"` (Triton), `"reference"` (PyTorch, any device); None: by the tensors' device.
            Or what `register_backend` returned, or its name.

    Returns:
        A `MatchField` with `index` and `similarity` of shape `(B, num_heads, k, *query_spatial)`. A query with fewer
        than k admissible keys has index -1 and similarity -inf in the places left. With `rotations`, `scales` or
        `mirror` its `transform` says how each match is transformed; `index` is then the key position nearest to the
        match, and two matches of a query differ in position or transform.

        These are found as generalized PatchMatch (Barnes et al. 2010) has them, on a canvas: copies of the key under
        each transform, drawn side by side (bicubic; quarter turns and mirrors exactly) and searched together. Time and
        memory grow with their number, by less than it (docs/performance.md).

    Raises:
        ValueError: an argument is out of range; the message names it, what came and what is allowed.
        RuntimeError: the backend does not load.

    Example:
        >>> import torch
        >>> from patchattn import match
        >>> image = torch.rand(1, 3, 32, 32)
        >>> shifted = image.roll((2, 5), dims=(2, 3))
        >>> field = match(image, shifted, patch_size=5, method="exact")
        >>> field.offsets()[0, 0, 0, :, 10, 10]
        tensor([2, 5])
    """
    key, key_mask, given, kept = resolve_key(key, key_mask, options)
    settings = settings_from(SearchSettings, given, "match")
    problem = define_problem(query, key, settings, query_mask, key_mask)
    canvas = define_canvas(query, key, settings, problem)
    with kept:
        if canvas is None:
            return find_field(query, key, problem, init)
        return find_transformed(query, key, problem, canvas, key_mask, init)


def find_field(query: Tensor, key: Tensor, problem: Problem, init: MatchField | None = None) -> MatchField:
    """Run the search that was defined for these tensors; of more matches than there are keys the rest is -1."""
    if init is not None:
        check_field("init", init, query, key, problem.geometry.num_heads)
        refuse_transform("init", init, "give the rotations=, scales= and mirror= that it was found with")
    k, keys = problem.k, prod(key.shape[2:])
    missing = k - keys if query.numel() and k > keys else 0
    if missing:
        problem = replace(problem, k=keys)
    index, found = search(query.detach(), key.detach(), None if init is None else init.index, problem)
    if missing:
        shape = (*index.shape[:2], missing, *index.shape[3:])
        index = torch.cat([index, index.new_full(shape, -1)], 2)
        found = torch.cat([found, found.new_full(shape, -torch.inf)], 2)
    return MatchField(index, found, tuple(key.shape[2:]))


def find_transformed(
    query: Tensor,
    key: Tensor,
    problem: Problem,
    canvas: Canvas,
    key_mask: Tensor | None,
    init: MatchField | None = None,
) -> MatchField:
    """Run the search on the canvas of the key's copies; `key_mask` is the caller's, without the border of "valid"."""
    start = None
    if init is not None:
        check_field("init", init, query, key, problem.geometry.num_heads)
        start = canvas.entered(init)
    constraints = replace(problem.constraints, key_mask=canvas.key_mask(key_mask))
    drawn = canvas.draw(key.detach(), problem.geometry.padding_mode)
    found = find_field(query, drawn, replace(problem, constraints=constraints), start)
    return canvas.field(found)


def check_field(name: str, field: Any, query: Tensor, key: Tensor, num_heads: int) -> None:
    """Check a field between tensors of these shapes.

    That its index is in range is checked by `check_positions`.
    """
    if not isinstance(field, MatchField):
        raise ValueError(f"{name}: expected a MatchField, got {type(field).__name__}.")
    if field.key_shape != tuple(key.shape[2:]):
        raise ValueError(f"{name}: its key_shape is {field.key_shape}, but key has size {tuple(key.shape[2:])}.")
    index = field.index
    expected = (query.shape[0], num_heads, *query.shape[2:])
    if index.dtype != torch.int32 or index.dim() < 4 or (*index.shape[:2], *index.shape[3:]) != expected:
        raise ValueError(
            f"{name}: expected an int32 index of shape (B, heads, k, *query) with B, heads, *query = {expected}, got "
            f"{index.dtype} {tuple(index.shape)}."
        )
    if index.device != query.device:
        raise ValueError(f"{name}: expected device {query.device} as query has, got {index.device}.")
    check_positions(f"{name}: its index", index, prod(field.key_shape))
    check_transform(name, field)


def refuse_transform(name: str, field: MatchField, remedy: str) -> None:
    """Refuse a field of transformed matches where matches have to be translations."""
    if field.transform is not None:
        raise ValueError(f"{name}: its matches are rotated, scaled or mirrored, which is not known here; {remedy}.")
