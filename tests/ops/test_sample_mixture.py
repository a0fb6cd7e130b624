"""Operator `patchattn::sample_mixture`."""

from __future__ import annotations

import math
from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.kernels.gaussian import gaussian_weights
from patchattn.ops.sample_mixture import Mixture, sample_mixture
from patchattn.problem import Constraints
from tests.cases import PAIRS, TOLERANCE, Pair, check_operator, constraints_of, mask, random_index, strided

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

EXACT = TOLERANCE[torch.float64]
NONE = Constraints()
SCALE = {1: (1.5,), 2: (0.7, 2.0), 3: (1.0, 0.5, 1.5)}
"""For so many dimensions; another one in each."""


def arguments(
    modes: Tensor, key_shape: Any, backend: str, constraints: Constraints = NONE, **changed: Any
) -> tuple[Any, ...]:
    defaults: dict[str, Any] = {
        "scale": SCALE[len(key_shape)],
        "alpha": 0.5,
        "samples": 6,
        "seed": 3,
        "double": True,
        "backend": backend,
    }
    assert changed.keys() <= defaults.keys()
    scale, alpha, samples, seed, *rest = (defaults | changed).values()
    return (modes, torch.empty(1, 1, *key_shape), Mixture(tuple(scale), alpha, samples, seed), constraints, *rest)


def no_modes(*shape: int) -> Tensor:
    return torch.full(shape, -1, dtype=torch.int32)


def density(key: tuple[int, ...], modes: list[tuple[int, ...]], size: tuple[int, ...], scale: Any, alpha: float) -> Any:
    """Equation (17) for one query that may have any key, by a loop over the modes and the dimensions."""
    local = 0.0
    for mode in modes:
        share = 1.0
        for x, theta, length, phi in zip(key, mode, size, scale, strict=True):
            table = gaussian_weights(phi)
            reach = len(table) // 2
            inside = [int(table[y - theta + reach]) for y in range(length) if abs(y - theta) <= reach]
            share *= int(table[x - theta + reach]) / sum(inside) if abs(x - theta) <= reach else 0.0
        local += share / len(modes)
    alpha = alpha if modes else 0.0
    return alpha * local + (1 - alpha) / prod(size)


def test_one_key_is_drawn_for_certain(backend: str) -> None:
    index, log_density = sample_mixture(*arguments(no_modes(1, 1, 2, 3) + 1, [1], backend, samples=4))
    assert torch.equal(index, torch.zeros(1, 1, 4, 3, dtype=torch.int32))
    torch.testing.assert_close(log_density, torch.zeros(1, 1, 4, 3, dtype=torch.float64), **EXACT)


@pytest.mark.parametrize(
    ("constraints", "keys"),
    [
        (NONE, [[0, 1, 2, 3, 4]] * 5),
        (Constraints(is_causal=True), [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]),
        (Constraints(is_causal=True, strict=True), [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
        (Constraints(max_offset=(1,)), [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4]]),
        (Constraints(key_mask=torch.tensor([[True, False, False, True, True]])), [[0, 3, 4]] * 5),
        (
            Constraints(query_mask=torch.tensor([[True, True, False, True, True]])),
            [*[[0, 1, 2, 3, 4]] * 2, [], *[[0, 1, 2, 3, 4]] * 2],
        ),
    ],
)
@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_without_modes_all_keys_are_equally_likely(
    backend: str, alpha: float, constraints: Constraints, keys: list[list[int]]
) -> None:
    modes = no_modes(1, 1, 2, 5)
    index, log_density = sample_mixture(*arguments(modes, [5], backend, constraints, alpha=alpha, samples=100))
    for i, allowed in enumerate(keys):
        assert set(index[0, 0, :, i].tolist()) == set(allowed or [-1])
        expected = -math.log(len(allowed)) if allowed else 0.0
        torch.testing.assert_close(log_density[0, 0, :, i], torch.full((100,), expected, dtype=torch.float64), **EXACT)


def test_a_narrow_gaussian_draws_its_mode(backend: str) -> None:
    # The weights are 2^20 at the mode and 1 beside it: 2^20 of 2^20 + 2, and of 2^20 + 1 where one lies outside.
    modes = torch.tensor([0, 3, 5]).int().view(1, 1, 1, 3)
    index, log_density = sample_mixture(*arguments(modes, [6], backend, scale=[0.1], alpha=1.0))
    assert torch.equal(index, modes.expand(1, 1, 6, 3))
    beside = torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)
    expected = (2**20 / (2**20 + beside)).log().expand(1, 1, 6, 3)
    torch.testing.assert_close(log_density, expected, **EXACT)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_densities_are_those_of_equation_17(backend: str, alpha: float, dims: int) -> None:
    size = (7, 5, 4)[:dims]
    pair = Pair((6, 2, 1)[:dims], size, (1,) * dims)
    modes = random_index(pair, 3)
    index, log_density = sample_mixture(*arguments(modes, size, backend, alpha=alpha))
    places = list(product(*map(range, size)))
    for b, h, i in product(range(pair.batch), range(pair.heads), range(prod(pair.query))):
        own = [places[m] for m in modes[b, h].flatten(1)[:, i].tolist() if m >= 0]
        for t in range(index.shape[2]):
            key = int(index[b, h, t].flatten()[i])
            expected = math.log(density(places[key], own, size, SCALE[dims], alpha))
            assert float(log_density[b, h, t].flatten()[i]) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_keys_come_as_often_as_their_density_says(backend: str, alpha: float) -> None:
    # Many queries with the same modes: none is like another to the random numbers.
    size, centers, number = (4, 6), [(0, 0), (2, 4)], 20_000
    modes = torch.tensor([6 * y + x for y, x in centers]).int().view(1, 1, 2, 1, 1).expand(1, 1, 2, 100, 50)
    index, _ = sample_mixture(*arguments(modes, size, backend, alpha=alpha, samples=4))
    expected = torch.tensor([density(key, centers, size, SCALE[2], alpha) for key in product(range(4), range(6))])
    assert float(expected.sum()) == pytest.approx(1, abs=1e-6)
    often = index.flatten().bincount(minlength=24) / number
    # Four standard deviations of a share, and a little for keys that hardly ever come.
    assert ((often - expected).abs() <= 4 * (expected / number).sqrt() + 1e-4).all()


@pytest.mark.parametrize("constraints", [Constraints(max_offset=(2,)), Constraints(is_causal=True)])
def test_modes_beyond_what_is_allowed(backend: str, constraints: Constraints) -> None:
    # A field that was found under other constraints: the Gaussian about the mode holds no allowed key at all.
    modes = torch.tensor([29, 0]).int().view(1, 1, 2, 1).expand(1, 1, 2, 30)
    index, log_density = sample_mixture(
        *arguments(modes, [30], backend, constraints, scale=[0.5], alpha=0.5, samples=20)
    )
    assert log_density.isfinite().all()
    assert ((index >= -1) & (index < 30)).all()
    queries = torch.arange(30)
    near = (index <= queries) if constraints.is_causal else ((index - queries).abs() <= 2)
    assert (near | (index == -1)).all()


def test_single_precision_is_the_double_one_rounded(backend: str) -> None:
    pair = PAIRS["2d_sizes"]
    modes = random_index(pair, 3)
    wide = sample_mixture(*arguments(modes, pair.key, backend))
    found = sample_mixture(*arguments(modes, pair.key, backend, double=False))
    assert torch.equal(found[0], wide[0])
    assert (found[1].dtype, wide[1].dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(found[1], wide[1].float(), rtol=1e-6, atol=0)


def test_the_seed_decides(backend: str) -> None:
    pair = PAIRS["2d"]
    modes = random_index(pair, 2)
    first, again, other = (
        sample_mixture(*arguments(modes, pair.key, backend, seed=seed))[0] for seed in (5, 5, 2**40 + 5)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:, 0], first[:, 1]), "heads draw on their own"


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("label", ["free", "masks", "offset", "causal", "strict", "all"])
@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_opcheck(backend: str, name: str, label: str, double: bool) -> None:
    pair = PAIRS[name]
    modes = random_index(pair, 2)
    constraints = constraints_of(label, pair)
    check_operator(sample_mixture, arguments(modes, pair.key, backend, constraints, samples=3, double=double))


@pytest.mark.parametrize("label", ["free", "masks", "few_keys"])
@pytest.mark.parametrize("name", PAIRS)
def test_strides_do_not_matter(backend: str, name: str, label: str) -> None:
    pair = PAIRS[name]
    modes, c = random_index(pair, 2), constraints_of(label, pair)
    other = Constraints(*(None if m is None else strided(m) for m in (c.query_mask, c.key_mask)))
    expected = sample_mixture(*arguments(modes, pair.key, backend, c))
    found = sample_mixture(*arguments(strided(modes), pair.key, backend, other))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert all(x.is_contiguous() for x in found)


@pytest.mark.parametrize("size", [(1,), (2,), (1, 1), (1, 7), (5, 1), (1, 1, 1), (1, 3, 1), (3, 1, 2)])
def test_odd_sizes(backend: str, size: tuple[int, ...]) -> None:
    pair = Pair((2,) * len(size), size, (1,) * len(size), heads=2)
    index, log_density = sample_mixture(*arguments(random_index(pair, 2), size, backend, samples=1))
    assert index.shape == log_density.shape == (2, 2, 1, *pair.query)
    assert ((index >= 0) & (index < prod(size))).all()
    assert (log_density <= 1e-9).all()


@pytest.mark.parametrize("which", ["query_mask", "key_mask"])
def test_nothing_allowed_is_nothing_drawn(backend: str, which: str) -> None:
    pair = PAIRS["2d"]
    nothing = Constraints(**{which: torch.zeros(1, *pair.query, dtype=torch.bool)})
    for modes in (random_index(pair, 2), no_modes(2, 2, 2, *pair.query)):
        index, log_density = sample_mixture(*arguments(modes, pair.key, backend, nothing))
        assert (index == -1).all()
        assert (log_density == 0).all()


def test_inputs_stay_as_they_are(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    inputs = random_index(pair, 2), mask(1, *pair.query, share=0.7), mask(pair.batch, *pair.key, share=0.7)
    before = [x.clone() for x in inputs]
    sample_mixture(*arguments(inputs[0], pair.key, backend, Constraints(*inputs[1:])))
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
