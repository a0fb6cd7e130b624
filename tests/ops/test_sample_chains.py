"""Operator `patchattn::sample_chains`."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.kernels.gaussian import gaussian_weights
from patchattn.ops.sample_chains import Chains, sample_chains
from patchattn.problem import Constraints
from patchattn.similarity import resolve_similarity
from tests.cases import (
    PAIRS,
    SIMILARITIES,
    Pair,
    check_operator,
    constraints_of,
    geometry,
    integers,
    mask,
    normals,
    random_index,
    strided,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

NONE = Constraints()
SCALE = {1: (1.5,), 2: (0.7, 2.0), 3: (1.0, 0.5, 1.5)}
"""For so many dimensions; another one in each."""


def arguments(
    query: Tensor, key: Tensor, modes: Tensor, backend: str, constraints: Constraints = NONE, **changed: Any
) -> tuple[Any, ...]:
    dims = query.dim() - 2
    defaults: dict[str, Any] = {
        "patch_size": [1] * dims,
        "padding_mode": "reflect",
        "num_heads": modes.shape[1],
        "similarity": "dot",
        "scale": SCALE[dims],
        "temperature": 1.0,
        "chains": 2,
        "steps": 3,
        "seed": 3,
    }
    assert changed.keys() <= defaults.keys()
    patch_size, padding_mode, num_heads, similarity, scale, *rest = (defaults | changed).values()
    patches = geometry(patch_size, padding_mode, num_heads, similarity)
    return (query, key, modes, Chains(tuple(scale), *rest), patches, constraints, backend)


def inputs(pair: Pair, make: Any = normals, k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    return (*pair.features(make), random_index(pair, k))


def alike(keys: list[float], mode: int, queries: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of 1, whose product with a key is the key itself, and which differ in their random numbers alone."""
    modes = torch.full((1, 1, 1, queries), mode, dtype=torch.int32)
    return torch.ones(1, 1, queries), torch.tensor([[keys]]), modes


def test_known_answer(backend: str) -> None:
    # The best key by far is never left, and the worst as soon as a step hits another; without a mode there is no chain.
    query, key = torch.ones(1, 1, 3), torch.tensor([[[-1e6, 0.0, 1e6, 0.0, -2e6]]])
    modes = torch.tensor([[[[2, -1, -1], [2, 2, -1]]]], dtype=torch.int32)
    index, acceptance = sample_chains(*arguments(query, key, modes, backend, steps=50))
    assert index.shape == (1, 1, 2 * 2 * 50, 3)
    assert (index[0, 0, :, 0] == 2).all()
    assert (index[0, 0, :100, 1] == -1).all()
    assert (index[0, 0, 100:, 1] == 2).all()
    assert (index[0, 0, :, 2] == -1).all()
    # Steps of length 0 are accepted, no others.
    assert 0.05 < acceptance[0, 0, 0] < 0.5
    assert acceptance[0, 0, 2] == 0
    assert index.dtype == torch.int32
    assert acceptance.dtype == torch.float32

    climbed, _ = sample_chains(*arguments(*alike([-1e6, 0.0, 1e6, 0.0, -2e6], 4), backend, steps=50))
    height = key[0, 0, climbed[0, 0, :50, 0]]
    assert (height[1:] >= height[:-1]).all()
    assert climbed[0, 0, 49, 0] == 2


def test_every_step_inside_is_accepted_among_equals(backend: str) -> None:
    # The chains start in the middle of a line that two steps cannot leave: R = 4 for a scale of 1.
    features = alike([0.0] * 17, 8, queries=2000)
    index, acceptance = sample_chains(*arguments(*features, backend, scale=[1.0], steps=2, chains=1))
    assert (acceptance == 1).all()
    first = index[0, 0, 0].long() - 8
    weights = torch.tensor(gaussian_weights(1.0))
    expected = weights / weights.sum()
    often = (first + 4).bincount(minlength=9) / 2000
    assert ((often - expected).abs() <= 4 * (expected / 2000).sqrt() + 1e-3).all()


def test_a_single_key_refuses_what_leaves_it(backend: str) -> None:
    index, acceptance = sample_chains(*arguments(*alike([3.0], 0, queries=500), backend, scale=[1.0], steps=20))
    assert (index == 0).all()
    weights = gaussian_weights(1.0)
    assert float(acceptance.mean()) == pytest.approx(weights[4] / weights.sum(), abs=0.015)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_states_come_as_often_as_the_softmax_says(backend: str, temperature: float) -> None:
    keys = [0.0, 1.5, -0.5, 1.0, 0.0, 2.0, -1.0]
    settings: dict[str, Any] = {"temperature": temperature, "scale": [3.0], "steps": 60, "chains": 1}
    index, _ = sample_chains(*arguments(*alike(keys, 1, queries=1000), backend, **settings))
    settled = index[0, 0, 20:].flatten().long()
    often = settled.bincount(minlength=7) / settled.numel()
    torch.testing.assert_close(often, (torch.tensor(keys) / temperature).softmax(0), rtol=0, atol=0.015)


def test_each_step_is_that_of_metropolis_and_hastings(backend: str) -> None:
    # The chance of every state after 1, 2, ... steps, by powers of the matrix of all moves.
    keys, number = torch.tensor([0.0, 1.5, -0.5, 1.0, 0.0, 2.0, -1.0]), 4000
    weights = torch.tensor(gaussian_weights(1.5)).double()
    reach, place = len(weights) // 2, torch.arange(7)
    offset = place - place[:, None]
    proposed = torch.where(offset.abs() <= reach, weights[(offset + reach).clamp(0, 2 * reach)], 0) / weights.sum()
    move = proposed * (keys - keys[:, None]).exp().clamp(max=1).double()
    accepted = move.sum(1)
    move += torch.diag(1 - accepted)
    features = alike(keys.tolist(), 1, queries=number)
    index, acceptance = sample_chains(*arguments(*features, backend, steps=6, chains=1))
    chance = torch.zeros(7, dtype=torch.float64)
    chance[1], share = 1, torch.zeros(())
    for step in range(6):
        share = share + chance @ accepted / 6
        chance = chance @ move
        often = index[0, 0, step].bincount(minlength=7) / number
        assert ((often - chance).abs() <= 4 * (chance / number).sqrt()).all()
    assert float(acceptance.mean()) == pytest.approx(float(share), abs=0.015)


def test_chains_are_ordered_by_mode_and_replica(backend: str) -> None:
    # Steps of length 0 or 1 with weights that make the latter rare: states stay with their modes.
    query, key = torch.ones(1, 1, 1), torch.zeros(1, 1, 50)
    modes = torch.tensor([10, 40, -1, 25]).int().view(1, 1, 4, 1)
    index, _ = sample_chains(*arguments(query, key, modes, backend, scale=[0.1], chains=2, steps=3))
    assert index.flatten().tolist() == [10] * 6 + [40] * 6 + [-1] * 6 + [25] * 6


def test_keys_that_are_no_numbers_are_never_entered(backend: str) -> None:
    keys = [0.0, torch.nan, 0.0, torch.nan, 0.0]
    index, _ = sample_chains(*arguments(*alike(keys, 2), backend, steps=200))
    assert set(index.flatten().tolist()) == {0, 2, 4}


@pytest.mark.parametrize(
    ("constraints", "most"),
    [
        (Constraints(is_causal=True), [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3]]),
        (Constraints(is_causal=True, strict=True), [[], [0], [0, 1], [0, 1, 2]]),
        (Constraints(max_offset=(1,)), [[0, 1], [0, 1, 2], [1, 2, 3], [2, 3]]),
        (Constraints(key_mask=torch.tensor([[True, False, True, True]])), [[0, 2, 3]] * 4),
        (Constraints(query_mask=torch.tensor([[True, True, False, True]])), [[0, 1, 2, 3]] * 2 + [[], [0, 1, 2, 3]]),
    ],
)
def test_constraints_hold(backend: str, constraints: Constraints, most: list[list[int]]) -> None:
    modes = torch.tensor([keys[0] if keys else -1 for keys in most]).int().view(1, 1, 1, 4)
    # The masked query has a mode, which must not be used.
    modes = modes.clamp(min=0) if constraints.query_mask is not None else modes
    query = torch.zeros(1, 1, 4)
    index, acceptance = sample_chains(*arguments(query, query, modes, backend, constraints, steps=100))
    for i, keys in enumerate(most):
        assert set(index[0, 0, :, i].tolist()) == set(keys or [-1])
        assert (acceptance[0, 0, i] > 0) == bool(keys)


def test_all_keys_forbidden_is_no_step(backend: str) -> None:
    pair = PAIRS["2d"]
    nothing = Constraints(key_mask=torch.zeros(1, *pair.key, dtype=torch.bool))
    query, key, modes = inputs(pair)
    for start in (modes, torch.full_like(modes, -1)):
        index, acceptance = sample_chains(*arguments(query, key, start, backend, nothing))
        assert torch.equal(index, start.repeat_interleave(6, 2))
        assert (acceptance == 0).all()


@pytest.mark.parametrize("which", ["modes", "query_mask"])
def test_without_modes_there_are_no_chains(backend: str, which: str) -> None:
    pair = PAIRS["2d_sizes"]
    query, key, modes = inputs(pair)
    nothing = Constraints(query_mask=torch.zeros(1, *pair.query, dtype=torch.bool)) if which == "query_mask" else NONE
    start = modes if which == "query_mask" else torch.full_like(modes, -1)
    index, acceptance = sample_chains(*arguments(query, key, start, backend, nothing))
    assert (index == -1).all()
    assert (acceptance == 0).all()


def test_the_seed_decides(backend: str) -> None:
    pair = PAIRS["2d"]
    features = inputs(pair)
    first, again, other = (sample_chains(*arguments(*features, backend, seed=s))[0] for s in (5, 5, 2**40 + 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("similarity", ["scaled_dot", "l2", "cosine", "pointwise"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opcheck(backend: str, dtype: torch.dtype, similarity: str) -> None:
    pair = PAIRS["2d_sizes"]
    query, key, modes = inputs(pair)
    name = resolve_similarity(SIMILARITIES[similarity]).name
    settings: dict[str, Any] = {"similarity": name, "patch_size": pair.patch}
    check_operator(sample_chains, arguments(query.to(dtype), key.to(dtype), modes, backend, **settings))


@pytest.mark.parametrize("label", ["masks", "offset", "strict", "all"])
@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_opcheck_with_constraints(backend: str, name: str, label: str) -> None:
    pair = PAIRS[name]
    check_operator(sample_chains, arguments(*inputs(pair), backend, constraints_of(label, pair), patch_size=pair.patch))


@pytest.mark.parametrize("name", PAIRS)
def test_strides_do_not_matter(backend: str, name: str) -> None:
    pair = PAIRS[name]
    features, c = inputs(pair, integers), constraints_of("masks", pair)
    other = Constraints(*(strided(m) for m in (c.query_mask, c.key_mask) if m is not None))
    expected = sample_chains(*arguments(*features, backend, c, patch_size=pair.patch))
    found = sample_chains(*arguments(*(strided(x) for x in features), backend, other, patch_size=pair.patch))
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert all(x.is_contiguous() for x in found)


@pytest.mark.parametrize("size", [(1,), (2,), (1, 1), (1, 7), (5, 1), (1, 1, 1), (1, 3, 1), (3, 1, 2)])
def test_odd_sizes(backend: str, size: tuple[int, ...]) -> None:
    pair = Pair((2,) * len(size), size, (1,) * len(size), heads=2)
    query, key, modes = inputs(pair, k=1)
    index, acceptance = sample_chains(*arguments(query, key, modes.clamp(min=0), backend, chains=1))
    assert index.shape == (2, 2, 3, *pair.query)
    assert ((index >= 0) & (index < prod(size))).all()
    assert ((acceptance >= 0) & (acceptance <= 1)).all()


def test_inputs_stay_as_they_are(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    tensors = (*inputs(pair), mask(1, *pair.query, share=0.7), mask(pair.batch, *pair.key, share=0.7))
    before = [x.clone() for x in tensors]
    sample_chains(*arguments(*tensors[:3], backend, Constraints(*tensors[3:])))
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))
