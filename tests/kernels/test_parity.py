"""The compiled kernels against the reference: the same bits on whole numbers, the same numbers on any."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patchattn.kernels import load_backend
from patchattn.problem import Constraints, PatchGeometry
from tests.cases import (
    CAUSAL,
    CONSTRAINTS,
    PADDINGS,
    PAIRS,
    POINTWISE,
    SAME_SIZE,
    SIMILARITIES,
    Pair,
    constraints_of,
    integers,
    mask,
    normals,
    random_index,
)
from tests.kernels.parity import assert_close, assert_same_bits, both

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

HALVES = (torch.float16, torch.bfloat16)
WINDOWS = {"own": 1, "patch": 3}
CONSTRAINED = [(name, label) for name in PAIRS for label in CONSTRAINTS]
CONSTRAINED += [(name, label) for name in SAME_SIZE for label in CAUSAL]


def patchmatch_both(
    compiled: str,
    pair: Pair,
    geometry: PatchGeometry,
    constraints: Constraints,
    k: int,
    iterations: int = 2,
    **more: Any,
) -> tuple[Any, Any]:
    query, key = more.get("features") or pair.features(integers)
    more = {"seed": 7, "init": None} | more
    return both(
        compiled, "search_patchmatch", query, key, k, geometry, constraints, iterations, more["seed"], more["init"]
    )


@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "scaled_dot", "pointwise"])
@pytest.mark.parametrize("name", PAIRS)
def test_patchmatch_bit_for_bit(compiled: str, name: str, similarity: str) -> None:
    geometry = PAIRS[name].geometry(SIMILARITIES[similarity])
    assert_same_bits(*patchmatch_both(compiled, PAIRS[name], geometry, Constraints(), 3))


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize("name", ["1d", "2d_sizes", "3d_sizes"])
def test_patchmatch_bit_for_bit_with_any_padding(compiled: str, name: str, padding: str) -> None:
    geometry = PAIRS[name].geometry("l2", padding)
    assert_same_bits(*patchmatch_both(compiled, PAIRS[name], geometry, Constraints(), 3))


@pytest.mark.parametrize("constraints", ["free", "masks", "separation", "causal"])
@pytest.mark.parametrize("padding", ["reflect", "replicate"])
def test_patchmatch_bit_for_bit_by_cosine(compiled: str, padding: str, constraints: str) -> None:
    # Square roots are not rounded alike everywhere: these norms are all sqrt(36).
    pair = Pair((9, 13), (9, 13), (3, 3))
    features = tuple((x % 2) * 2 - 1 for x in pair.features(integers))
    geometry, limits = pair.geometry("cosine", padding), constraints_of(constraints, pair)
    assert_same_bits(*patchmatch_both(compiled, pair, geometry, limits, 3, features=features))


@pytest.mark.parametrize("k", [1, 7, 15])
@pytest.mark.parametrize("similarity", ["l1", "dot"])
@pytest.mark.parametrize("name", ["1d", "2d_shared"])
def test_patchmatch_bit_for_bit_with_any_number_of_matches(compiled: str, name: str, similarity: str, k: int) -> None:
    pair = PAIRS[name]
    assert_same_bits(
        *patchmatch_both(compiled, pair, pair.geometry(similarity), Constraints(), k, iterations=1, seed=k)
    )


@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_patchmatch_bit_for_bit_under_constraints(compiled: str, name: str, constraints: str) -> None:
    pair = PAIRS[name]
    assert_same_bits(
        *patchmatch_both(compiled, pair, pair.geometry(), constraints_of(constraints, pair), 4, iterations=1)
    )


@pytest.mark.parametrize("constraints", ["free", "masks", "separation"])
@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("name", ["1d", "2d_sizes"])
def test_patchmatch_bit_for_bit_from_a_start(compiled: str, name: str, iterations: int, constraints: str) -> None:
    pair = PAIRS[name]
    init = random_index(pair, 4)
    limits = constraints_of(constraints, pair)
    assert_same_bits(
        *patchmatch_both(compiled, pair, pair.geometry(), limits, 3, iterations, seed=2**40 + 5, init=init)
    )


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63 - 1])
def test_patchmatch_bit_for_bit_with_any_seed(compiled: str, seed: int) -> None:
    pair = PAIRS["2d"]
    assert_same_bits(*patchmatch_both(compiled, pair, pair.geometry(), Constraints(), 2, iterations=1, seed=seed))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_patchmatch_bit_for_bit_in_other_precisions(compiled: str, dtype: torch.dtype) -> None:
    pair = PAIRS["2d_sizes"]
    features = tuple(x.to(dtype) for x in pair.features(integers))
    found, expected = patchmatch_both(compiled, pair, pair.geometry(), Constraints(), 3, features=features)
    assert found[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_same_bits(found, expected)


def test_patchmatch_bit_for_bit_beyond_one_range_of_work(compiled: str) -> None:
    pair = Pair((47, 46), (45, 50), (3, 3), batch=1)
    assert_same_bits(*patchmatch_both(compiled, pair, pair.geometry(), Constraints(), 3, iterations=1))


@pytest.mark.parametrize("elements", [1, 3, 15, 16, 17, 31, 33, 65, 300])
@pytest.mark.parametrize("similarity", ["l2", "l1", "dot"])
def test_patchmatch_bit_for_bit_with_any_number_of_channels(compiled: str, similarity: str, elements: int) -> None:
    # The vector loops of the kernels end at each of these lengths in another way; 300 stops early.
    pair = Pair((4, 3), (3, 4), (3, 1), batch=1)
    features = pair.features(integers, channels=elements)
    assert_same_bits(
        *patchmatch_both(compiled, pair, pair.geometry(similarity), Constraints(), 2, 1, features=features)
    )


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
def test_patchmatch_bit_for_bit_with_a_patch_larger_than_the_image(compiled: str, padding: str) -> None:
    pair = Pair((2, 3), (3, 2), (9, 7))
    assert_same_bits(*patchmatch_both(compiled, pair, pair.geometry("l2", padding), Constraints(), 2))


@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "scaled_dot", "pointwise"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", ["1d_short", "2d_sizes", "2d_shared", "3d_sizes"])
def test_exact_bit_for_bit(compiled: str, name: str, padding: str, similarity: str) -> None:
    pair = PAIRS[name]
    query, key = pair.features(integers)
    geometry = pair.geometry(SIMILARITIES[similarity], padding)
    assert_same_bits(*both(compiled, "search_exact", query, key, 3, geometry, Constraints()))


@pytest.mark.parametrize("similarity", ["l2", "l1"])
@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_exact_bit_for_bit_under_constraints(compiled: str, name: str, constraints: str, similarity: str) -> None:
    pair = PAIRS[name]
    query, key = pair.features(integers)
    limits = constraints_of(constraints, pair)
    assert_same_bits(*both(compiled, "search_exact", query, key, 4, pair.geometry(similarity), limits))


@pytest.mark.parametrize("name", PAIRS)
def test_exact_cosine(compiled: str, name: str) -> None:
    # Products of normalized patches round, so that equal similarities may change places.
    pair = PAIRS[name]
    query, key = pair.features(normals)
    found, expected = both(
        compiled, "search_exact", query, key, 3, pair.geometry("cosine"), constraints_of("masks", pair)
    )
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1], torch.float64)


@pytest.mark.parametrize("similarity", ["l2", "dot"])
def test_exact_bit_for_bit_beyond_one_block(compiled: str, similarity: str) -> None:
    pair = Pair((47, 45), (45, 48), (1, 1), batch=1)
    query, key = pair.features(integers, channels=2)
    limits = Constraints(key_mask=mask(1, *pair.key, share=0.7))
    assert_same_bits(*both(compiled, "search_exact", query, key, 3, pair.geometry(similarity), limits))


@pytest.mark.parametrize("size", [5, 6])
def test_exact_and_patchmatch_with_every_key(compiled: str, size: int) -> None:
    pair = Pair((3, 4), (2, size), (3, 3))
    query, key = pair.features(integers)
    keys = 2 * size
    assert_same_bits(*both(compiled, "search_exact", query, key, keys, pair.geometry("l2", "zeros"), Constraints()))
    found, expected = patchmatch_both(compiled, pair, pair.geometry("l2", "zeros"), Constraints(), keys)
    assert_same_bits(found, expected)
    assert torch.equal(found[0].sort(2).values, torch.arange(keys).int().view(1, 1, -1, 1, 1).expand_as(found[0]))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("similarity", ["l2", "l1", "dot"])
def test_bits_survive_what_is_not_finite(compiled: str, similarity: str, value: float) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(integers)
    query[:, :, 2, 3] = value
    key[:, 1, 5, 7] = value
    geometry = pair.geometry(similarity)
    assert_same_bits(*patchmatch_both(compiled, pair, geometry, Constraints(), 3, 1, features=(query, key)))
    assert_same_bits(*both(compiled, "search_exact", query, key, 3, geometry, Constraints()))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("name", ["1d_short", "2d", "2d_sizes", "3d_sizes"])
def test_similarity_and_its_gradient(compiled: str, name: str, similarity: str, padding: str) -> None:
    pair = PAIRS[name]
    query, key = pair.features(normals)
    index, geometry = random_index(pair, 3), pair.geometry(SIMILARITIES[similarity], padding)
    found, expected = both(compiled, "similarity_at", query, key, index, geometry)
    assert torch.equal(found == -torch.inf, index < 0)
    assert_close(found, expected, torch.float64)
    grad = normals(*index.shape, seed=3).where(index >= 0, torch.nan)
    found, expected = both(compiled, "similarity_at_backward", grad, query, key, index, geometry)
    assert [g.shape for g in found] == [query.shape, key.shape]
    assert_close(found, expected, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("similarity", ["l2", "scaled_dot", "cosine"])
def test_similarity_and_its_gradient_in_lower_precision(compiled: str, similarity: str, dtype: torch.dtype) -> None:
    pair = PAIRS["2d_shared"]
    query, key = (x.to(dtype) for x in pair.features(normals))
    index, geometry = random_index(pair, 3), pair.geometry(similarity)
    found, expected = both(compiled, "similarity_at", query, key, index, geometry)
    assert found.dtype == torch.float32
    assert_close(found, expected, torch.float32)
    grad = 0.1 * normals(*index.shape, seed=3).float()
    found, expected = both(compiled, "similarity_at_backward", grad, query, key, index, geometry)
    assert [g.dtype for g in found] == [dtype, dtype]
    assert_close(found, expected, dtype)


def attend_arguments(pair: Pair, window: int, dtype: torch.dtype = torch.float64) -> tuple[Any, ...]:
    index = random_index(pair, 3)
    similarity = normals(*index.shape, seed=1).where(index >= 0, -torch.inf)
    similarity = similarity.to(torch.float64 if dtype == torch.float64 else torch.float32)
    value = normals(1 if pair.shared else pair.batch, 8, *pair.key, seed=2).to(dtype)
    extents = pair.patch if window == 3 else (1,) * pair.dims
    return similarity, index, value, extents, 0.7


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", PAIRS)
def test_attend_and_its_gradient(compiled: str, name: str, window: str) -> None:
    arguments = attend_arguments(PAIRS[name], WINDOWS[window])
    found, expected = both(compiled, "attend", *arguments)
    assert_close(found, expected, torch.float64)
    grad = normals(*expected[0].shape, seed=4)
    similarity, index, value, extents, temperature = arguments
    found, expected = both(compiled, "attend_backward", grad, similarity, index, value, *expected, extents, temperature)
    assert (found[0][index < 0] == 0).all()
    assert_close(found, expected, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("window", WINDOWS)
def test_attend_and_its_gradient_in_lower_precision(compiled: str, window: str, dtype: torch.dtype) -> None:
    arguments = attend_arguments(PAIRS["2d_shared"], WINDOWS[window], dtype)
    found, expected = both(compiled, "attend", *arguments)
    assert [x.dtype for x in found] == [dtype, torch.float32]
    assert_close(found[0], expected[0], dtype)
    assert_close(found[1], expected[1], torch.float32)
    grad = normals(*expected[0].shape, seed=4).to(dtype)
    similarity, index, value, extents, temperature = arguments
    found, expected = both(compiled, "attend_backward", grad, similarity, index, value, *expected, extents, temperature)
    assert [x.dtype for x in found] == [torch.float32, dtype]
    assert_close(found[0], expected[0], torch.float32)
    assert_close(found[1], expected[1], dtype)


def test_pointwise_without_derivative_is_refused(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(normals)
    geometry = pair.geometry(type(POINTWISE)("nameless", POINTWISE.function))
    with pytest.raises(RuntimeError, match="similarity: nameless has no derivative; give one to pointwise_"):
        load_backend(backend).similarity_at_backward(
            normals(*random_index(pair, 1).shape), query, key, random_index(pair, 1), geometry
        )
