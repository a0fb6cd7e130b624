"""The compiled guided searches: the same bits where projected numbers are whole, the same quality elsewhere."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

import patchattn
from patchattn.kernels import load_backend
from patchattn.problem import Constraints
from tests.cases import (
    CAUSAL,
    CONSTRAINTS,
    PAIRS,
    SAME_SIZE,
    SIMILARITIES,
    TOLERANCE,
    Pair,
    constraints_of,
    fewer,
    integers,
    mask,
    normals,
    photograph,
    random_index,
)
from tests.kernels.parity import assert_same_bits, both, placed

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

MOST_ELEMENTS = 24
"""Of a patch: up to here (dot products add one) it is not projected, only centered and scaled by a power of two, so
that nothing is rounded in one backend and not in the other."""
CONSTRAINED_PAIRS = ("1d", "2d_sizes", "3d")
CONSTRAINED = [(name, label) for name in CONSTRAINED_PAIRS for label in CONSTRAINTS]
CONSTRAINED += [(name, label) for name in CONSTRAINED_PAIRS if name in SAME_SIZE for label in CAUSAL]


def smooth(*shape: int, seed: int = 0) -> Tensor:
    """Whole numbers that change slowly, so that matches of neighbors are worth something."""
    image = integers(*shape, seed=seed, high=40)
    for dim in 2 * list(range(2, len(shape))):
        image = ((image.roll(-1, dim) + image + image.roll(1, dim)) / 3).round()
    return image


def untied(*shape: int, seed: int = 0) -> Tensor:
    """The same, with noise that keeps similarities apart."""
    return smooth(*shape, seed=seed) + normals(*shape, seed=seed + 1, dtype=torch.float32)


def features_of(pair: Pair, make: Any) -> tuple[Tensor, Tensor]:
    """With as many channels as keep a patch of one head short."""
    return pair.features(make, channels=pair.heads * max(1, MOST_ELEMENTS // prod(pair.patch)))


def search_both(
    compiled: str,
    pair: Pair,
    k: int = 3,
    iterations: int = 2,
    similarity: Any = "l2",
    constraints: Constraints | None = None,
    **more: Any,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    query, key = more["features"] if "features" in more else features_of(pair, more.get("make", smooth))
    geometry = pair.geometry(similarity, more.get("padding", "reflect"))
    assert prod(pair.patch) * query.shape[1] // pair.heads <= MOST_ELEMENTS
    limits = Constraints() if constraints is None else constraints
    seed, init = more.get("seed", 7), more.get("init")
    return both(compiled, "search_guided", query, key, k, geometry, limits, iterations, seed, init)


@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot"])
@pytest.mark.parametrize("make", [integers, smooth])
@pytest.mark.parametrize("name", PAIRS)
def test_bit_for_bit(compiled: str, name: str, make: Any, similarity: str) -> None:
    assert_same_bits(*search_both(compiled, PAIRS[name].on(compiled), similarity=similarity, make=make))


@pytest.mark.parametrize("similarity", ["l1", "pointwise"])
@pytest.mark.parametrize("name", ["1d", "2d_shared", "3d_sizes"])
def test_bit_for_bit_by_similarities_that_end_with_patchmatch(compiled: str, name: str, similarity: str) -> None:
    pair = replace(PAIRS[name].on(compiled), heads=1)
    assert_same_bits(
        *search_both(compiled, pair, 2, 1, SIMILARITIES[similarity], constraints=constraints_of("masks", pair))
    )


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "3d"])
def test_the_same_matches_by_cosine(compiled: str, name: str) -> None:
    # Products of normalized patches round: their similarities may differ in the last bit, and must not tie.
    pair, iterations = PAIRS[name].on(compiled), fewer(compiled, 2, 1)
    found, expected = search_both(compiled, pair, iterations=iterations, similarity="cosine", make=untied)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], **TOLERANCE[torch.float32])


@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_bit_for_bit_under_constraints(compiled: str, name: str, constraints: str) -> None:
    pair = PAIRS[name].on(compiled)
    limits = constraints_of(constraints, pair)
    limits = replace(
        limits,
        query_mask=None if limits.query_mask is None else limits.query_mask[:1],
        key_mask=None if limits.key_mask is None else limits.key_mask[:1],
    )
    pair = replace(pair, heads=1, batch=1)
    assert_same_bits(*search_both(compiled, pair, 3, fewer(compiled, 2, 1), constraints=limits))


def test_bit_for_bit_with_masks_of_each_batch_item(compiled: str) -> None:
    pair = PAIRS["2d_shared"].on(compiled)
    masks = mask(2, *pair.query, share=0.8), mask(2, *pair.key, share=0.6, seed=1)
    masks[1][1] = False
    assert_same_bits(*search_both(compiled, pair, constraints=Constraints(*masks)))


@pytest.mark.parametrize("keys", [1, 2, 9])
def test_bit_for_bit_with_fewer_keys_than_matches(compiled: str, keys: int) -> None:
    pair = Pair((6, 7), (8, 5), (3, 3), batch=1)
    allowed = torch.zeros(1, 40, dtype=torch.bool)
    allowed[:, torch.randperm(40, generator=torch.Generator().manual_seed(0))[:keys]] = True
    limits = Constraints(key_mask=allowed.view(1, *pair.key))
    found, expected = search_both(compiled, pair, 11, constraints=limits)
    assert_same_bits(found, expected)
    assert (found[0] >= 0).sum() == keys * 42


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 9])
@pytest.mark.parametrize("k", [1, 3, 16])
def test_bit_for_bit_with_any_number_of_matches_and_scans(compiled: str, k: int, iterations: int) -> None:
    pair = Pair((19, 13), (12, 21), (3, 3), batch=1).on(compiled)
    # Scans are marked with their number; 9 of them are more than there are marks.
    assert_same_bits(*search_both(compiled, pair, fewer(compiled, k, min(k, 5)), iterations))


@pytest.mark.parametrize(
    ("query", "key"),
    [
        ((35, 15), (21, 18)),
        ((33, 1), (1, 40)),
        ((1, 45), (50, 1)),
        ((1, 1), (5, 5)),
        ((5, 5), (1, 1)),
        ((1,), (30,)),
        ((30,), (1,)),
        ((5, 7, 9), (4, 11, 6)),
        ((1, 6, 5), (3, 1, 9)),
        ((20, 1, 1), (1, 1, 20)),
        ((1, 1, 20), (20, 1, 1)),
    ],
)
def test_bit_for_bit_with_any_sizes(compiled: str, query: tuple[int, ...], key: tuple[int, ...]) -> None:
    pair = Pair(query, key, (3,) * min(2, len(query)) + (1,) * (len(query) - 2), batch=1).on(compiled)
    query_features, key_features = features_of(pair, smooth)
    geometry = {"padding": "replicate", "features": (query_features, key_features)}
    assert_same_bits(*search_both(compiled, pair, 3, fewer(compiled, 3, 2), **geometry))


def test_bit_for_bit_on_a_line_of_more_than_one_band(compiled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair((4150,), (4300,), (3,), batch=1)
    if compiled == "gpu":
        pair = pair.on(compiled)
        for name in ("gpu.guided_scan", "reference.guided"):
            monkeypatch.setattr(f"patchattn.kernels.{name}.BAND_OF_LINE", 16)
    assert_same_bits(*search_both(compiled, pair, 1, 2))


@pytest.mark.parametrize("offset", [(0, 0), (1, 3), (6, 6), (99, 99)])
def test_bit_for_bit_within_any_offset(compiled: str, offset: tuple[int, int]) -> None:
    pair = Pair((19, 14), (17, 23), (3, 3), batch=1).on(compiled)
    limits = Constraints(key_mask=mask(1, *pair.key, share=0.8), max_offset=offset)
    assert_same_bits(*search_both(compiled, pair, 3, fewer(compiled, 2, 1), constraints=limits))


@pytest.mark.parametrize("limits", [Constraints(min_separation=(2, 5)), Constraints(is_causal=True)])
def test_bit_for_bit_under_constraints_beyond_one_band(compiled: str, limits: Constraints) -> None:
    size = (18, 3) if compiled == "gpu" else (22, 17)
    pair = Pair(size, size, (3, 3), batch=1)
    assert_same_bits(*search_both(compiled, pair, 2, fewer(compiled, 2, 1), constraints=limits))


LATTICES = {
    "rows": lambda y, x: y % 2 == 0,
    "every second in both": lambda y, x: (y % 2 == 0) & (x % 2 == 1),
    "quincunx": lambda y, x: (y + x) % 2 == 0,
    "every third": lambda y, x: (y + x) % 3 == 0,
}


@pytest.mark.parametrize("lattice", LATTICES)
@pytest.mark.parametrize("pair", [Pair((37, 11), (12, 14), (3, 3), batch=1), Pair((4, 6, 9), (3, 7, 5), (1, 3, 3))])
def test_bit_for_bit_on_a_lattice_of_queries(compiled: str, pair: Pair, lattice: str) -> None:
    if compiled == "gpu":
        pair = replace(pair, query=(18, 5)) if len(pair.query) == 2 else pair.on(compiled)
    rows, columns = torch.meshgrid(*(torch.arange(size) for size in pair.query[-2:]), indexing="ij")
    chosen = LATTICES[lattice](rows, columns).expand(1, *pair.query)
    limits = Constraints(query_mask=chosen)
    found, expected = search_both(compiled, replace(pair, batch=1), 2, fewer(compiled, 3, 2), constraints=limits)
    assert_same_bits(found, expected)
    assert torch.equal(found[0][:, 0, 0] >= 0, chosen)


@pytest.mark.parametrize("constraints", ["free", "masks", "separation"])
@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("name", ["1d", "2d"])
def test_bit_for_bit_from_a_start(compiled: str, name: str, iterations: int, constraints: str) -> None:
    pair = replace(PAIRS[name].on(compiled), batch=1)
    limits = constraints_of(constraints, replace(pair, shared=True))
    init = random_index(pair, 4)
    assert (init < 0).any()
    assert_same_bits(*search_both(compiled, pair, 3, iterations, constraints=limits, seed=2**40 + 5, init=init))


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_bit_for_bit_in_other_precisions(compiled: str, dtype: torch.dtype, padding: str) -> None:
    pair = PAIRS["2d_sizes"].on(compiled)
    query, key = (x.to(dtype) for x in features_of(pair, smooth))
    found, expected = search_both(compiled, pair, 3, fewer(compiled, 2, 1), features=(query, key), padding=padding)
    assert found[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_same_bits(found, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_bits_survive_what_is_not_finite(compiled: str, value: float) -> None:
    pair, iterations = PAIRS["2d_shared"].on(compiled), fewer(compiled, 2, 1)
    query, key = features_of(pair, smooth)
    query[:, :, 2, 3] = value
    key[:, -1, 4, 6] = value
    assert_same_bits(*search_both(compiled, pair, 3, iterations, features=(query, key)))
    key[:] = value
    assert_same_bits(*search_both(compiled, pair, 3, iterations, features=(query, key)))


def test_bit_for_bit_where_all_is_equal(compiled: str) -> None:
    pair = Pair((9, 20), (18, 11), (3, 3), batch=1).on(compiled)
    ones = torch.ones(1, 1, *pair.query), torch.ones(1, 1, *pair.key)
    assert_same_bits(*search_both(compiled, pair, features=ones))


SMALL_PIECES = {"astronaut": (100, 180), "coffee": (60, 300)}
"""Where so small a piece as gpu gets has something to find."""


@pytest.mark.parametrize(
    ("name", "similarity"),
    [("astronaut", "l2"), ("coffee", "l2"), ("coffee", "dot"), ("astronaut", "scaled_dot"), ("coffee", "cosine")],
)
def test_photographs(compiled: str, name: str, similarity: str) -> None:
    size = fewer(compiled, 48, 18)
    row, column = fewer(compiled, (100, 180), SMALL_PIECES[name])
    query = photograph(name, slice(row, row + size), slice(column, column + size)).double()
    key = photograph(name, slice(row + 12, row + 12 + size), slice(column - 10, column - 10 + size)).double()
    settings: dict[str, Any] = {"patch_size": 5, "similarity": similarity}
    best = patchattn.match(query, key, k=1, method="exact", backend="reference", **settings)
    fields = [
        patchattn.match(*placed((query, key), name), k=3, method="guided", backend=name, **settings)
        for name in (compiled, "reference")
    ]
    means = [field.similarity.mean().cpu() for field in fields]
    recalls = [(field.index.cpu() == best.index).any(2).double().mean().item() for field in fields]
    torch.testing.assert_close(*means, rtol=0.01, atol=0)
    assert min(recalls) >= 0.92


def noise_of(pair: Pair) -> tuple[Tensor, Tensor]:
    """Patches in which no direction stands out (of fewer than 170 keys, any 32 hold two fifths of the variance)."""
    return pair.features(normals, channels=400)


@pytest.mark.parametrize(("similarity", "iterations"), [("l2", 1), ("l1", 1), ("cosine", 6)])
def test_white_noise_is_left_to_patchmatch(backend: str, similarity: str, iterations: int) -> None:
    pair = Pair(fewer(backend, (19, 20), (5, 4)), (20, 18), (1, 1), batch=1)
    query, key = noise_of(pair)
    geometry, init, kernels = pair.geometry(similarity), random_index(pair, 2), load_backend(backend)
    found = kernels.search_guided(query, key, 1, geometry, Constraints(), iterations, 3, init)
    expected = kernels.search_patchmatch(query, key, 1, geometry, Constraints(), max(iterations, 5), 3, init)
    assert_same_bits(found, expected)


def test_each_item_is_searched_in_its_own_way(backend: str) -> None:
    # White noise in the first head; in the second, four different channels.
    pair = Pair(fewer(backend, (18, 17), (5, 4)), (18, 19), (1, 1), heads=2, batch=1)
    images = (x.double().repeat(1, 100, 1, 1) for x in pair.features(smooth))
    query, key = (torch.cat(heads, 1) for heads in zip(noise_of(pair), images, strict=True))
    kernels = load_backend(backend)
    found = kernels.search_guided(query, key, 2, pair.geometry(), Constraints(), 1, 3, None)
    by_patchmatch = kernels.search_patchmatch(query, key, 2, pair.geometry(), Constraints(), 5, 3, None)
    assert torch.equal(found[0][:, 0], by_patchmatch[0][:, 0])
    assert not torch.equal(found[0][:, 1], by_patchmatch[0][:, 1])
