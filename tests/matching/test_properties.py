"""What holds for every search, whatever the shapes, precisions, patches, constraints and numbers of matches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn import MatchField, match, patch_attention
from patchattn.field import home_coordinates
from patchattn.kernels import load_backend
from patchattn.problem import PatchGeometry
from patchattn.similarity import resolve_similarity
from tests.cases import COMPILED, TOLERANCE, fewer, mask, normals

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

EXAMPLES = {"cpu": 60, "gpu": 3, "reference": 4}
"""The reference is slow, and so is Triton's interpreter."""


def examples(*strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test with each backend, on problems made by the first strategy and what the others give."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @pytest.mark.parametrize("backend", EXAMPLES)
        def run(backend: str) -> None:
            def one(drawn: tuple[Any, ...]) -> None:
                test(drawn[0].on(backend), *drawn[1:])

            one.__name__ = test.__name__  # examples are drawn by it
            count = settings(max_examples=EXAMPLES[backend], derandomize=True, database=None)
            count(given(st.tuples(*strategies))(one))()

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


@dataclass
class Problem:
    """Arguments of a search."""

    query: Tensor
    key: Tensor
    options: dict[str, Any]

    def solve(self, **changed: Any) -> MatchField:
        return match(self.query, self.key, **(self.options | changed))

    def on(self, backend: str) -> Problem:
        options = self.options | {"backend": backend}
        options["iterations"] = min(options["iterations"], fewer(backend, 4, 1))
        options["k"] = min(options["k"], fewer(backend, 9, 3))
        return replace(self, options=options)


@st.composite
def problems(draw: st.DrawFn, method: str | None = None, constrained: bool = True) -> Problem:
    dims = draw(st.integers(1, 3))
    side = st.integers(1, {1: 90, 2: 13, 3: 6}[dims])
    query_size = tuple(draw(side) for _ in range(dims))
    key_size = query_size if draw(st.booleans()) else tuple(draw(side) for _ in range(dims))
    batch, heads, each = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]))
    seed = draw(st.integers(0, 1000))
    query = normals(batch, heads * each, *query_size, seed=seed, dtype=dtype)
    key = normals(draw(st.sampled_from([1, batch])), heads * each, *key_size, seed=seed + 1, dtype=dtype)
    padding = draw(st.sampled_from(["reflect", "replicate", "zeros", "valid"]))

    def odd(limit: int) -> int:
        return draw(st.sampled_from([size for size in (1, 3, 5) if size <= limit]))

    smallest = [min(pair) for pair in zip(query_size, key_size, strict=True)]
    limits = {"reflect": [2 * n - 1 for n in smallest], "valid": smallest}.get(padding, [5] * dims)
    options: dict[str, Any] = {
        "k": draw(st.integers(1, min(9, math.prod(key_size)))),
        "patch_size": tuple(odd(limit) for limit in limits),
        "padding_mode": padding,
        "num_heads": heads,
        "similarity": draw(st.sampled_from(["l2", "l1", "dot", "scaled_dot", "cosine"])),
        "method": method
        if method is not None
        else draw(st.sampled_from(["exact", "guided", "patchmatch", "repeated"])),
        "iterations": draw(st.integers(0, 4)),
        "seed": draw(st.integers(0, 2**63 - 1)),
    }
    if constrained:
        share = st.sampled_from([0.0, 0.1, 0.5, 0.9])
        if draw(st.booleans()):
            options["query_mask"] = mask(draw(st.sampled_from([1, batch])), *query_size, share=draw(share), seed=seed)
        if draw(st.booleans()):
            options["key_mask"] = mask(draw(st.sampled_from([1, batch])), *key_size, share=draw(share), seed=seed + 1)
        options["is_causal"] = query_size == key_size and draw(st.sampled_from([False, True, "strict"]))
        if draw(st.booleans()):
            options["min_separation"] = tuple(draw(st.integers(0, 4)) for _ in range(dims))
        if draw(st.booleans()):
            options["max_offset"] = tuple(draw(st.integers(0, 5)) for _ in range(dims))
    return Problem(query, key, options)


def geometry_of(problem: Problem) -> PatchGeometry:
    options = problem.options
    padding = "zeros" if options["padding_mode"] == "valid" else options["padding_mode"]
    similarity = resolve_similarity(options["similarity"])
    return PatchGeometry(options["patch_size"], padding, options["num_heads"], similarity)


def inside(size: tuple[int, ...], patch: tuple[int, ...]) -> Tensor:
    result = torch.zeros(size, dtype=torch.bool)
    result[tuple(slice(p // 2, n - p // 2) for n, p in zip(size, patch, strict=True))] = True
    return result


def admissible(problem: Problem) -> Tensor:
    """(B, queries, keys): what may match what, from the definition."""
    options, batch = problem.options, problem.query.shape[0]
    sizes = tuple(problem.query.shape[2:]), tuple(problem.key.shape[2:])
    allowed = torch.ones(batch, math.prod(sizes[0]), math.prod(sizes[1]), dtype=torch.bool)
    if (query_mask := options.get("query_mask")) is not None:
        allowed &= query_mask.flatten(1)[:, :, None]
    if (key_mask := options.get("key_mask")) is not None:
        allowed &= key_mask.flatten(1)[:, None, :]
    if options["padding_mode"] == "valid":
        query_inside, key_inside = (inside(size, options["patch_size"]).flatten() for size in sizes)
        allowed &= query_inside[:, None] & key_inside
    if options.get("is_causal"):
        allowed &= torch.ones(allowed.shape[1:], dtype=torch.bool).tril(-int(options["is_causal"] == "strict"))
    if (limits := options.get("max_offset")) is not None:
        home = home_coordinates(*sizes, torch.device("cpu")).flatten(1)
        place = torch.stack(torch.meshgrid(*(torch.arange(n) for n in sizes[1]), indexing="ij")).flatten(1)
        allowed &= ((place[:, None] - home[:, :, None]).abs() <= torch.tensor(limits)[:, None, None]).all(0)
    return allowed


@examples(problems())
def test_a_list_is_best_first_without_duplicates_and_minus_one_is_minus_infinity(problem: Problem) -> None:
    field = problem.solve()
    index, similarity = field.index.flatten(3), field.similarity.flatten(3)
    assert index.dtype == torch.int32
    assert similarity.dtype == (torch.float64 if problem.query.dtype == torch.float64 else torch.float32)
    assert torch.equal(index < 0, similarity == -torch.inf)
    assert ((index >= -1) & (index < math.prod(field.key_shape))).all()
    assert (similarity[:, :, :-1] >= similarity[:, :, 1:]).all()
    for one in range(field.k):
        for other in range(one):
            assert ((index[:, :, one] != index[:, :, other]) | (index[:, :, one] < 0)).all()


@examples(problems())
def test_the_stored_similarity_is_the_recomputed_one(problem: Problem) -> None:
    field = problem.solve()
    wide = problem.query.double(), problem.key.double()
    expected = load_backend("reference").similarity_at(*wide, field.index, geometry_of(problem))
    dtype = field.similarity.dtype
    torch.testing.assert_close(field.similarity, expected.to(dtype), **TOLERANCE[dtype])
    again = load_backend(problem.options["backend"]).similarity_at(
        problem.query, problem.key, field.index, geometry_of(problem)
    )
    torch.testing.assert_close(field.similarity, again, **TOLERANCE[dtype])


@examples(problems())
def test_constraints_are_respected(problem: Problem) -> None:
    field = problem.solve()
    allowed = admissible(problem).unsqueeze(1).expand(-1, field.index.shape[1], -1, -1)
    index = field.index.flatten(3).transpose(2, 3).long()
    assert (allowed.gather(3, index.clamp(min=0)) | (index < 0)).all()
    # A place is empty only where keys run out. PatchMatch finds them all where it goes through them.
    if not any(problem.options.get("min_separation", ())) and problem.options["method"] == "exact":
        held = (index >= 0).sum(3)
        assert torch.equal(held, allowed.sum(3).clamp(max=field.k))


@examples(problems())
def test_matches_keep_their_distance(problem: Problem) -> None:
    field = problem.solve()
    least = torch.tensor(problem.options.get("min_separation", (0,) * len(field.key_shape))).clamp(min=1)
    places = field.coordinates().flatten(4)
    for one in range(field.k):
        for other in range(one):
            both = (field.index[:, :, one] >= 0) & (field.index[:, :, other] >= 0)
            apart = ((places[:, :, one] - places[:, :, other]).abs() >= least[:, None]).any(2)
            assert (apart | ~both.flatten(2)).all()


@examples(problems(method="exact"))
def test_exact_is_the_best_there_is(problem: Problem) -> None:
    separated = any(size > 1 for size in problem.options.get("min_separation", ()))
    field = problem.solve()
    heads, keys = problem.options["num_heads"], math.prod(field.key_shape)
    every = torch.arange(keys, dtype=torch.int32).view(1, 1, keys, *(1,) * len(field.key_shape))
    every = every.expand(problem.query.shape[0], heads, keys, *field.query_shape)
    wide = problem.query.double(), problem.key.double()
    dense = load_backend("reference").similarity_at(*wide, every, geometry_of(problem)).flatten(3).transpose(2, 3)
    dense = dense.masked_fill(~admissible(problem).unsqueeze(1), -torch.inf)
    best = dense.topk(1 if separated else field.k, dim=3).values.transpose(2, 3)
    dtype = field.similarity.dtype
    found = field.similarity.flatten(3)[:, :, : best.shape[2]]
    torch.testing.assert_close(found, best.to(dtype), **TOLERANCE[dtype])


@examples(problems(method="patchmatch"), st.integers(1, 3))
def test_more_iterations_never_make_it_worse(problem: Problem, more: int) -> None:
    first = problem.solve()
    second = problem.solve(iterations=problem.options["iterations"] + more)
    # The best only improves; with a separation a better match may drive out several worse ones, else all improve.
    kept = 1 if any(size > 1 for size in problem.options.get("min_separation", ())) else first.k
    assert (second.similarity[:, :, :kept] >= first.similarity[:, :, :kept]).all()
    # One search continued is as good as its start.
    third = problem.solve(init=first, iterations=more, seed=5)
    assert (third.similarity[:, :, :kept] >= first.similarity[:, :, :kept]).all()


@examples(problems(method="guided"))
def test_the_guided_search_never_makes_a_start_worse(problem: Problem) -> None:
    first = problem.solve(method="patchmatch")
    second = problem.solve(init=first)
    kept = 1 if any(size > 1 for size in problem.options.get("min_separation", ())) else first.k
    assert (second.similarity[:, :, :kept] >= first.similarity[:, :, :kept]).all()


@examples(problems(method="guided", constrained=False))
def test_the_guided_search_fills_its_lists(problem: Problem) -> None:
    """Whatever the tree looks like: a query has a match in every place, if there are as many keys."""
    field = problem.solve(padding_mode="zeros", patch_size=1, iterations=0)
    assert (field.index >= 0).all()


@examples(problems(method="patchmatch", constrained=False))
def test_patchmatch_finds_all_where_there_are_few(problem: Problem) -> None:
    keys = math.prod(problem.key.shape[2:])
    k = min(keys, 20)
    field = problem.solve(k=k, padding_mode="zeros", patch_size=1, iterations=0)
    if keys <= 20:
        expected = torch.arange(keys, dtype=torch.int32)[:, None].expand(-1, math.prod(field.query_shape))
        assert (field.index.flatten(3).sort(2).values == expected).all()
    else:
        assert (field.index[:, :, 0] >= 0).all()


@examples(problems(), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 2**31))
def test_what_is_not_finite_stays_where_it_is(problem: Problem, value: float, place: int) -> None:
    query, key, size = problem.query.clone(), problem.key.clone(), tuple(problem.query.shape[2:])
    spot = np.unravel_index(place % math.prod(size), size)
    query[(slice(None), slice(None), *spot)] = value
    field = match(query, key, **problem.options)
    assert torch.equal(field.index < 0, field.similarity == -torch.inf)
    assert (field.index < math.prod(field.key_shape)).all()
    if problem.options["method"] == "exact":
        # Each query has its own answer: those whose patch does not hold the value have the same as before.
        touched = torch.zeros(1, 1, *size, dtype=torch.float64)
        touched[(0, 0, *spot)] = 1
        ones = torch.zeros(1, 1, *size, dtype=torch.float64)
        geometry = PatchGeometry(
            problem.options["patch_size"], geometry_of(problem).padding_mode, 1, resolve_similarity("l2")
        )
        own = torch.arange(math.prod(size), dtype=torch.int32).view(1, 1, 1, *size)
        clear = load_backend("reference").similarity_at(touched, ones, own, geometry)[0, 0, 0] == 0
        before = problem.solve()
        assert torch.equal(field.index[..., clear], before.index[..., clear])
        assert torch.equal(field.similarity[..., clear], before.similarity[..., clear])


@examples(problems(constrained=False), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 2**31))
def test_a_key_that_is_not_a_number_is_no_match(problem: Problem, value: float, place: int) -> None:
    key, size = problem.key.clone(), tuple(problem.key.shape[2:])
    spot = np.unravel_index(place % math.prod(size), size)
    key[(slice(None), slice(None), *spot)] = value
    field = match(problem.query, key, **problem.options)
    assert torch.equal(field.index < 0, field.similarity == -torch.inf)
    assert not field.similarity.isnan().any()
    if problem.options["similarity"] in ("l2", "l1") or math.isnan(value):
        assert (field.index != place % math.prod(size)).all()


@examples(problems(), st.booleans(), st.floats(0.1, 10))
def test_attention_is_a_mean_of_values(problem: Problem, aggregate: bool, temperature: float) -> None:
    heads, dtype = problem.options["num_heads"], problem.key.dtype
    value = normals(problem.key.shape[0], 2 * heads, *problem.key.shape[2:], seed=9, dtype=dtype)
    options = problem.options | {"aggregate": aggregate, "temperature": temperature, "return_field": True}
    output, field = patch_attention(problem.query, problem.key, value, **options)
    assert output.dtype == dtype
    assert output.isfinite().all()
    step = 0 if dtype == torch.float64 else torch.finfo(dtype).eps
    assert output.amax() <= max(0.0, value.amax().item()) * (1 + 2 * step) + 1e-6
    assert output.amin() >= min(0.0, value.amin().item()) * (1 + 2 * step) - 1e-6
    constant = torch.full_like(value, 0.75)
    flat = patch_attention(problem.query, problem.key, constant, **(options | {"return_field": False, "field": field}))
    heard = flat != 0
    torch.testing.assert_close(flat[heard], constant.new_full((), 0.75).expand(int(heard.sum())), **TOLERANCE[dtype])
    if not aggregate:
        matched = (field.index >= 0).any(2).repeat_interleave(2, 1)
        assert torch.equal(heard, matched)


@pytest.mark.parametrize("compiled", COMPILED)
def test_backends_respect_the_same_constraints(compiled: str) -> None:
    @settings(max_examples=fewer(compiled, 15, 3), derandomize=True, database=None)
    @given(problems(constrained=True))
    def run(problem: Problem) -> None:
        problem = problem.on(compiled)
        found, expected = problem.solve(), problem.solve(backend="reference")
        wanted = problem.options["method"] == "exact"
        if wanted and not any(problem.options.get("min_separation", ())):
            dtype = found.similarity.dtype
            torch.testing.assert_close(found.similarity, expected.similarity, **TOLERANCE[dtype])
        allowed = admissible(problem).unsqueeze(1)
        for field in (found, expected):
            index = field.index.flatten(3).transpose(2, 3).long()
            rows = allowed.expand(-1, index.shape[1], -1, -1)
            assert (rows.gather(3, index.clamp(min=0)) | (index < 0)).all()

    run()
