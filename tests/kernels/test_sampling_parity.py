"""What the compiled kernels add to a search (windows, samples, chains, sums, repeated runs) against the reference.

Keys are the same bits on whole numbers; densities and sums are the same numbers on any.
"""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.kernels.reference.constraints import admissible
from patchattn.kernels.reference.positions import all_positions
from patchattn.problem import Constraints
from tests.cases import (
    CAUSAL,
    CONSTRAINTS,
    PAIRS,
    SAME_SIZE,
    SIMILARITIES,
    Pair,
    constraints_of,
    fewer,
    integers,
    mask,
    normals,
    random_index,
    strided,
)
from tests.kernels.parity import assert_close, assert_same_bits, both

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

HALVES = (torch.float16, torch.bfloat16)
CONSTRAINED = [(name, label) for name in PAIRS for label in CONSTRAINTS]
CONSTRAINED += [(name, label) for name in SAME_SIZE for label in CAUSAL]
LARGE = Pair((47, 46), (45, 50), (3, 3), batch=1)
"""More than one range of work."""


def modes_of(pair: Pair, constraints: Constraints, k: int = 3, seed: int = 0) -> Tensor:
    """Matches that the constraints allow, -1 in any slot, all slots of some queries."""
    modes = random_index(pair, k, seed).long().flatten(3)
    allowed = admissible(all_positions(pair.query, modes.device), modes, pair.query, pair.key, constraints)
    some = mask(*modes.shape, share=0.9, seed=5) & mask(*modes.shape[:2], 1, modes.shape[3], share=0.9, seed=6)
    return torch.where(allowed & some, modes, -1).int().unflatten(3, pair.query)


def near_home(pair: Pair, constraints: Constraints, k: int = 3) -> Tensor:
    """The same where few keys are allowed: each query's first keys that are, from all over the domain if there are."""
    queries = all_positions(pair.query, torch.device("cpu"))
    order = torch.randperm(prod(pair.key), generator=torch.Generator().manual_seed(3))
    keys = order[:, None].expand(pair.batch, pair.heads, -1, len(queries))
    allowed = admissible(queries, keys, pair.query, pair.key, constraints)
    first = torch.sort((~allowed).int(), dim=2, stable=True).indices[:, :, :k]
    modes = torch.where(allowed.gather(2, first), keys.gather(2, first), -1)
    return torch.where(mask(*modes.shape, share=0.8, seed=5), modes, -1).int().unflatten(3, pair.query)


def scale_of(pair: Pair, scales: tuple[float, ...] = (1.3, 0.6, 2.0)) -> tuple[float, ...]:
    return scales[: pair.dims]


def assert_same_samples(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], dtype: torch.dtype) -> None:
    """Index bit for bit, what comes with it by tolerance."""
    assert found[0].dtype == expected[0].dtype == torch.int32
    assert found[1].dtype == expected[1].dtype == dtype
    assert torch.equal(found[0], expected[0])
    assert_close(found[1], expected[1], dtype)


# ---- windows about matches ----


@pytest.mark.parametrize("radius", [0, 1, (2, 0, 1)])
@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_expand(compiled: str, name: str, constraints: str, radius: Any) -> None:
    pair = PAIRS[name]
    extents = (radius,) * pair.dims if isinstance(radius, int) else radius[: pair.dims]
    limits = constraints_of(constraints, pair)
    for index in (random_index(pair, 3), near_home(pair, limits)):
        found, expected = both(compiled, "expand", index, pair.key, extents, limits)
        assert found.dtype == torch.int32
        assert torch.equal(found, expected)


def test_expand_beyond_one_range_of_work_and_with_any_strides(compiled: str) -> None:
    index = random_index(LARGE, 2)
    found, expected = both(compiled, "expand", index, LARGE.key, (2, 1), Constraints())
    assert torch.equal(found, expected)
    found, expected = both(compiled, "expand", strided(index), LARGE.key, (2, 1), Constraints())
    assert torch.equal(found, expected)


# ---- the mixture ----


def mixture_both(
    compiled: str,
    pair: Pair,
    modes: Tensor,
    constraints: Constraints,
    alpha: float = 0.6,
    dtype: torch.dtype = torch.float64,
    **more: Any,
) -> tuple[Any, Any]:
    scale, samples, seed = more.get("scale", scale_of(pair)), more.get("samples", 5), more.get("seed", 7)
    return both(compiled, "sample_mixture", modes, pair.key, constraints, scale, alpha, samples, seed, dtype)


@pytest.mark.parametrize("choose", [modes_of, near_home])
@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_mixture(compiled: str, name: str, constraints: str, choose: Any) -> None:
    pair, limits = PAIRS[name], constraints_of(constraints, PAIRS[name])
    found, expected = mixture_both(compiled, pair, choose(pair, limits), limits)
    assert_same_samples(found, expected, torch.float64)
    assert (found[1][found[0] < 0] == 0).all()


@pytest.mark.parametrize("scale", [0.2, 0.5, 4.0, 40.0])
@pytest.mark.parametrize("constraints", ["free", "causal", "strict", "all"])
@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_mixture_with_any_scale(compiled: str, name: str, constraints: str, scale: float) -> None:
    pair, limits = PAIRS[name], constraints_of(constraints, PAIRS[name])
    found, expected = mixture_both(compiled, pair, near_home(pair, limits), limits, scale=(scale,) * pair.dims)
    assert_same_samples(found, expected, torch.float64)


@pytest.mark.parametrize("alpha", [0.0, 1e-9, 1 / 3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("k", [1, 5])
def test_mixture_with_any_share(compiled: str, alpha: float, dtype: torch.dtype, k: int) -> None:
    pair = PAIRS["2d_sizes"]
    limits = constraints_of("masks", pair)
    found, expected = mixture_both(compiled, pair, near_home(pair, limits, k), limits, alpha, dtype)
    assert_same_samples(found, expected, dtype)


@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63 - 1])
def test_mixture_with_any_seed(compiled: str, seed: int) -> None:
    pair = PAIRS["2d"]
    assert_same_samples(*mixture_both(compiled, pair, random_index(pair, 2), Constraints(), seed=seed), torch.float64)


def test_mixture_at_modes_that_masks_exclude(compiled: str) -> None:
    pair = PAIRS["2d"]
    assert_same_samples(
        *mixture_both(compiled, pair, random_index(pair, 4), constraints_of("masks", pair)), torch.float64
    )


@pytest.mark.parametrize("constraints", ["causal", "offset", "all"])
@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_mixture_at_modes_out_of_reach(compiled: str, name: str, constraints: str) -> None:
    # No search finds such matches, but they may come from another field.
    pair, limits = PAIRS[name], constraints_of(constraints, PAIRS[name])
    modes = random_index(pair, 3)
    found, expected = mixture_both(compiled, pair, modes, limits, 1.0, scale=(0.3,) * pair.dims)
    assert_same_samples(found, expected, torch.float64)


def test_mixture_beyond_one_range_of_work_and_with_any_strides(compiled: str) -> None:
    modes, many = random_index(LARGE, 2), 40
    assert_same_samples(*mixture_both(compiled, LARGE, modes, Constraints(), samples=many), torch.float64)
    assert_same_samples(*mixture_both(compiled, LARGE, strided(modes), Constraints()), torch.float64)


# ---- chains ----


def chains_both(
    compiled: str,
    pair: Pair,
    modes: Tensor,
    constraints: Constraints,
    temperature: float = 60.0,
    similarity: Any = "l2",
    **more: Any,
) -> tuple[Any, Any]:
    query, key = more.get("features") or pair.features(integers)
    geometry = pair.geometry(similarity, more.get("padding", "reflect"))
    scale, chains, steps = more.get("scale", scale_of(pair)), more.get("chains", 2), more.get("steps", 6)
    seed = more.get("seed", 7)
    return both(
        compiled, "sample_chains", query, key, modes, geometry, constraints, scale, temperature, chains, steps, seed
    )


@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "scaled_dot", "pointwise"])
@pytest.mark.parametrize("name", PAIRS)
def test_chains(compiled: str, name: str, similarity: str) -> None:
    pair = PAIRS[name]
    found, expected = chains_both(
        compiled, pair, random_index(pair, 3), Constraints(), similarity=SIMILARITIES[similarity]
    )
    assert_same_samples(found, expected, torch.float32)
    assert 0 < found[1].mean() < 1


@pytest.mark.parametrize("choose", [modes_of, near_home])
@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_chains_under_constraints(compiled: str, name: str, constraints: str, choose: Any) -> None:
    pair, limits = PAIRS[name], constraints_of(constraints, PAIRS[name])
    assert_same_samples(*chains_both(compiled, pair, choose(pair, limits), limits), torch.float32)


@pytest.mark.parametrize("constraints", ["masks", "offset", "causal"])
def test_chains_from_modes_that_are_not_allowed(compiled: str, constraints: str) -> None:
    pair = PAIRS["2d"]
    assert_same_samples(
        *chains_both(compiled, pair, random_index(pair, 3), constraints_of(constraints, pair)), torch.float32
    )


@pytest.mark.parametrize("padding", ["replicate", "zeros"])
@pytest.mark.parametrize("name", ["1d", "2d_sizes", "3d_sizes"])
def test_chains_with_any_padding(compiled: str, name: str, padding: str) -> None:
    pair = PAIRS[name]
    assert_same_samples(
        *chains_both(compiled, pair, random_index(pair, 2), Constraints(), padding=padding), torch.float32
    )


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_chains_in_other_precisions(compiled: str, dtype: torch.dtype) -> None:
    pair = PAIRS["2d_sizes"]
    features = tuple(x.to(dtype) for x in pair.features(integers))
    assert_same_samples(
        *chains_both(compiled, pair, random_index(pair, 3), Constraints(), features=features), torch.float32
    )


@pytest.mark.parametrize(("chains", "steps"), [(1, 1), (1, 20), (5, 3)])
@pytest.mark.parametrize("scale", [0.3, 9.0])
@pytest.mark.parametrize("k", [1, 4])
def test_chains_of_any_number_and_length(compiled: str, k: int, scale: float, chains: int, steps: int) -> None:
    pair = PAIRS["2d_shared"]
    found, expected = chains_both(
        compiled, pair, random_index(pair, k), Constraints(), chains=chains, steps=steps, scale=(scale,) * 2
    )
    assert_same_samples(found, expected, torch.float32)


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("seed", [0, 2**32 - 1, 2**32, 2**63 - 1])
def test_chains_with_any_seed_and_temperature(compiled: str, seed: int, temperature: float) -> None:
    pair = PAIRS["2d"]
    found, expected = chains_both(compiled, pair, random_index(pair, 2), Constraints(), temperature, seed=seed)
    assert_same_samples(found, expected, torch.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("similarity", ["l2", "l1", "dot"])
def test_chains_among_what_is_not_finite(compiled: str, similarity: str, value: float) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(integers)
    query[:, :, 2, 3] = value
    key[:, 1, 5, 7] = value
    modes = random_index(pair, 3)
    modes[:, :, 0] = 5 * 9 + 7
    found, expected = chains_both(compiled, pair, modes, Constraints(), similarity=similarity, features=(query, key))
    assert_same_samples(found, expected, torch.float32)


def test_chains_beyond_one_range_of_work_and_with_any_strides(compiled: str) -> None:
    modes = random_index(LARGE, 2)
    assert_same_samples(*chains_both(compiled, LARGE, modes, Constraints()), torch.float32)
    features = tuple(strided(x) for x in LARGE.features(integers))
    assert_same_samples(*chains_both(compiled, LARGE, strided(modes), Constraints(), features=features), torch.float32)


# ---- weighted sums ----


def sum_arguments(pair: Pair, dtype: torch.dtype = torch.float64, k: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """The weights of a slot without a key are whatever was there."""
    index = random_index(pair, k)
    weight = normals(*index.shape, seed=1).where(index >= 0, torch.nan)
    value = normals(1 if pair.shared else pair.batch, 8, *pair.key, seed=2).to(dtype)
    return weight.to(torch.float64 if dtype == torch.float64 else torch.float32), index, value


@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("name", PAIRS)
def test_weighted_sum_and_its_gradient(compiled: str, name: str, k: int) -> None:
    arguments = sum_arguments(PAIRS[name], k=k)
    found, expected = both(compiled, "weighted_sum", *arguments)
    assert_close(found, expected, torch.float64)
    found, expected = both(compiled, "weighted_sum_backward", normals(*expected.shape, seed=4), *arguments)
    assert (found[0][arguments[1] < 0] == 0).all()
    assert_close(found, expected, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("name", ["1d", "2d_shared", "3d_sizes"])
def test_weighted_sum_and_its_gradient_in_lower_precision(compiled: str, name: str, dtype: torch.dtype) -> None:
    arguments = sum_arguments(PAIRS[name], dtype)
    found, expected = both(compiled, "weighted_sum", *arguments)
    assert found.dtype == dtype
    assert_close(found, expected, dtype)
    grad = 0.1 * normals(*expected.shape, seed=4).to(dtype)
    found, expected = both(compiled, "weighted_sum_backward", grad, *arguments)
    assert [x.dtype for x in found] == [torch.float32, dtype]
    assert_close(found[0], expected[0], torch.float32)
    assert_close(found[1], expected[1], dtype)


@pytest.mark.parametrize("weight_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value_dtype", [torch.float16, torch.float32, torch.float64])
def test_weighted_sum_of_mixed_dtypes(compiled: str, value_dtype: torch.dtype, weight_dtype: torch.dtype) -> None:
    weight, index, value = sum_arguments(PAIRS["2d"])
    arguments = weight.to(weight_dtype), index, value.to(value_dtype)
    found, expected = both(compiled, "weighted_sum", *arguments)
    assert found.dtype == expected.dtype == value_dtype
    assert_close(found, expected, value_dtype)
    found, expected = both(
        compiled, "weighted_sum_backward", normals(*expected.shape, seed=4).to(value_dtype), *arguments
    )
    assert [x.dtype for x in found] == [x.dtype for x in expected] == [weight_dtype, value_dtype]
    # In which of the two dtypes sums are computed is left open.
    sums = weight_dtype if value_dtype == torch.float64 else torch.float32
    assert_close(found[0], expected[0], sums)
    assert_close(found[1], expected[1], sums if value_dtype == torch.float64 else value_dtype)


def test_weighted_sum_where_values_are_not_finite(compiled: str) -> None:
    weight, index, value = sum_arguments(PAIRS["2d_shared"])
    value[..., 4, 5] = torch.nan
    grad = normals(*index.shape[:1], 8, *index.shape[3:], seed=4)
    grad[:, :, 1, 2] = torch.inf
    for name, arguments in (
        ("weighted_sum", (weight, index, value)),
        ("weighted_sum_backward", (grad, weight, index, value)),
    ):
        found, expected = both(compiled, name, *arguments)
        torch.testing.assert_close(found, expected, equal_nan=True)


def test_weighted_sum_beyond_one_range_of_work_and_with_any_strides(compiled: str) -> None:
    arguments = sum_arguments(LARGE)
    grad = normals(1, 8, *LARGE.query, seed=4)
    assert_close(*both(compiled, "weighted_sum", *arguments), torch.float64)
    assert_close(*both(compiled, "weighted_sum_backward", grad, *arguments), torch.float64)
    arguments = tuple(strided(x) for x in arguments)  # type: ignore[assignment]
    assert_close(*both(compiled, "weighted_sum", *arguments), torch.float64)
    assert_close(*both(compiled, "weighted_sum_backward", strided(grad), *arguments), torch.float64)


# ---- repeated search ----


def repeated_both(
    compiled: str, pair: Pair, constraints: Constraints, k: int, iterations: int = 1, **more: Any
) -> tuple[Any, Any]:
    query, key = more.get("features") or pair.features(integers)
    geometry = pair.geometry(more.get("similarity", "l2"))
    seed, init = more.get("seed", 7), more.get("init")
    return both(compiled, "search_repeated", query, key, k, geometry, constraints, iterations, seed, init)


@pytest.mark.parametrize("similarity", ["l2", "l1", "dot", "scaled_dot", "pointwise"])
@pytest.mark.parametrize("name", PAIRS)
def test_repeated_bit_for_bit(compiled: str, name: str, similarity: str) -> None:
    assert_same_bits(*repeated_both(compiled, PAIRS[name], Constraints(), 3, similarity=SIMILARITIES[similarity]))


@pytest.mark.parametrize(("name", "constraints"), CONSTRAINED)
def test_repeated_bit_for_bit_under_constraints(compiled: str, name: str, constraints: str) -> None:
    k = fewer(compiled, 4, 2)
    assert_same_bits(*repeated_both(compiled, PAIRS[name], constraints_of(constraints, PAIRS[name]), k))


@pytest.mark.parametrize("separation", [(1, 1), (2, 5), (0, 3), (20, 1), (20, 20)])
@pytest.mark.parametrize("k", [2, 9])
def test_repeated_bit_for_bit_with_any_separation(compiled: str, k: int, separation: tuple[int, ...]) -> None:
    limits, k = Constraints(min_separation=separation), fewer(compiled, k, min(k, 4))
    assert_same_bits(*repeated_both(compiled, PAIRS["2d_sizes"], limits, k))
    assert_same_bits(*repeated_both(compiled, PAIRS["3d_sizes"], Constraints(min_separation=(*separation, 2)), k))


@pytest.mark.parametrize("constraints", ["free", "masks", "separation"])
@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("name", ["1d", "2d_sizes"])
def test_repeated_bit_for_bit_from_a_start(compiled: str, name: str, iterations: int, constraints: str) -> None:
    pair = PAIRS[name]
    limits, init = constraints_of(constraints, pair), random_index(pair, 4)
    assert_same_bits(*repeated_both(compiled, pair, limits, 3, iterations, seed=2**40 + 5, init=init))


@pytest.mark.parametrize("k", [1, 25])
def test_repeated_bit_for_bit_with_any_number_of_matches(compiled: str, k: int) -> None:
    # 25 matches are sought among 5 keys, and 100 random keys tried for each among 97.
    k = fewer(compiled, k, min(k, 6))
    for name in ("1d_short", "1d", "2d"):
        assert_same_bits(*repeated_both(compiled, PAIRS[name], Constraints(), k))


@pytest.mark.parametrize("dtype", [*HALVES, torch.float64])
def test_repeated_bit_for_bit_in_other_precisions(compiled: str, dtype: torch.dtype) -> None:
    pair = PAIRS["2d_sizes"]
    features = tuple(x.to(dtype) for x in pair.features(integers))
    found, expected = repeated_both(compiled, pair, constraints_of("separation", pair), 3, features=features)
    assert found[1].dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_same_bits(found, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_repeated_bit_for_bit_among_what_is_not_finite(compiled: str, value: float) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(integers)
    query[:, :, 2, 3] = value
    key[:, 1, 5, 7] = value
    for similarity in ("l2", "dot"):
        assert_same_bits(*repeated_both(compiled, pair, Constraints(), 3, similarity=similarity, features=(query, key)))


def test_repeated_bit_for_bit_beyond_one_range_of_work(compiled: str) -> None:
    assert_same_bits(*repeated_both(compiled, LARGE, Constraints(min_separation=(4, 4)), 3))


# ---- no query at all ----


def test_empty_batch(compiled: str) -> None:
    pair = Pair((5,), (6,), (3,), batch=0)
    (query, key), modes, geometry, free = (
        pair.features(integers),
        torch.zeros(0, 1, 2, 5).int(),
        pair.geometry(),
        Constraints(),
    )
    for name, arguments in (
        ("expand", (modes, pair.key, (1,), free)),
        ("sample_mixture", (modes, pair.key, free, (1.0,), 0.5, 3, 0, torch.float32)),
        ("sample_chains", (query, key, modes, geometry, free, (1.0,), 1.0, 2, 3, 0)),
        ("weighted_sum", (modes.float(), modes, key)),
        ("weighted_sum_backward", (query, modes.float(), modes, key)),
        ("search_repeated", (query, key, 2, geometry, free, 1, 0, None)),
    ):
        found, expected = both(compiled, name, *arguments)
        torch.testing.assert_close(found, expected)
