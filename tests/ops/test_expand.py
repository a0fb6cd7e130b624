"""Operator `patchattn::expand`."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.ops.expand import expand
from patchattn.problem import Constraints
from tests.cases import (
    CAUSAL,
    CONSTRAINTS,
    PAIRS,
    SAME_SIZE,
    Pair,
    check_operator,
    constraints_of,
    mask,
    random_index,
    strided,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SMALL = {
    "1d": Pair((6,), (6,), (1,), heads=2),
    "2d": Pair((4, 5), (4, 5), (1, 1), heads=2),
    "3d": Pair((2, 4, 3), (2, 4, 3), (1, 1, 1)),
    "2d_sizes": Pair((4, 3), (3, 5), (1, 1), batch=3),
}
RADIUS = {1: (2,), 2: (1, 2), 3: (1, 0, 2)}
"""For so many dimensions; another one in each."""
NONE = Constraints()


def arguments(
    index: Tensor, key_shape: Any, radius: Any, backend: str, constraints: Constraints = NONE
) -> tuple[Any, ...]:
    return index, torch.empty(1, 1, *key_shape), tuple(radius), constraints, backend


def keys_of(found: Tensor, b: int, h: int, i: int) -> list[int]:
    """The keys of one query, without the -1."""
    held: list[int] = found[b, h].flatten(1)[:, i].tolist()
    return [j for j in held if j >= 0]


def test_known_answer(backend: str) -> None:
    # The second window loses the key that the first one holds; the others lose what leaves the line.
    index = torch.tensor([[[[1, 0, -1], [3, -1, 5]]]], dtype=torch.int32)
    found = expand(*arguments(index, [6], [1], backend))
    expected = [[0, 1, 2, -1, 3, 4], [-1, 0, 1, -1, -1, -1], [-1, -1, -1, 4, 5, -1]]
    assert found[0, 0].T.tolist() == expected
    assert found.dtype == torch.int32


def test_known_windows_of_an_image(backend: str) -> None:
    # Key 5 of 3 x 4 is in the middle of row 1, key 11 the last corner; a window may be a column, a row, or both.
    index = torch.tensor([[[[[5, 11]]]]], dtype=torch.int32)
    for radius, middle, corner in (
        ((1, 0), [1, 5, 9], [7, 11, -1]),
        ((0, 1), [4, 5, 6], [10, 11, -1]),
        ((1, 1), [0, 1, 2, 4, 5, 6, 8, 9, 10], [6, 7, -1, 10, 11, -1, -1, -1, -1]),
    ):
        found = expand(*arguments(index, [3, 4], radius, backend))
        assert found[0, 0, :, 0].T.tolist() == [middle, corner]


def test_known_constraints(backend: str) -> None:
    # Every query has matched key 2, and reaches the keys 1, 2 and 3.
    index = torch.full((1, 1, 1, 5), 2, dtype=torch.int32)
    kept = {
        "causal": (Constraints(is_causal=True), [[], [1], [1, 2], [1, 2, 3], [1, 2, 3]]),
        "strict": (Constraints(is_causal=True, strict=True), [[], [], [1], [1, 2], [1, 2, 3]]),
        "offset": (Constraints(max_offset=(1,)), [[1], [1, 2], [1, 2, 3], [2, 3], [3]]),
        "key_mask": (Constraints(key_mask=torch.tensor([[True, False, True, True, True]])), [[2, 3]] * 5),
        "query_mask": (
            Constraints(query_mask=torch.tensor([[True, False, True, True, True]])),
            [[1, 2, 3], [], *[[1, 2, 3]] * 3],
        ),
    }
    for constraints, expected in kept.values():
        found = expand(*arguments(index, [5], [1], backend, constraints))
        assert [keys_of(found, 0, 0, i) for i in range(5)] == expected


@pytest.mark.parametrize("name", SMALL)
def test_the_keys_are_the_union_of_the_windows(backend: str, name: str) -> None:
    pair = SMALL[name]
    radius = RADIUS[pair.dims]
    index = random_index(pair, 4)
    found = expand(*arguments(index, pair.key, radius, backend))
    assert found.shape == (pair.batch, pair.heads, 4 * prod(2 * r + 1 for r in radius), *pair.query)
    places = list(product(*map(range, pair.key)))
    for b, h, i in product(range(pair.batch), range(pair.heads), range(prod(pair.query))):
        centers = [places[m] for m in keys_of(index, b, h, i)]
        near = {
            j
            for j, place in enumerate(places)
            for center in centers
            if all(abs(a - c) <= r for a, c, r in zip(place, center, radius, strict=True))
        }
        held = keys_of(found, b, h, i)
        assert len(held) == len(set(held)), "a key counts once"
        assert set(held) == near


@pytest.mark.parametrize("name", SMALL)
def test_no_reach_keeps_the_matches(backend: str, name: str) -> None:
    pair = SMALL[name]
    index = torch.arange(prod(pair.key)).int().view(1, 1, -1, *(1,) * pair.dims)
    index = index.expand(pair.batch, pair.heads, -1, *pair.query)
    assert torch.equal(expand(*arguments(index, pair.key, [0] * pair.dims, backend)), index)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_reach_beyond_the_domain_takes_every_key_once(backend: str, dims: int) -> None:
    pair = SMALL[f"{dims}d"]
    index = random_index(pair, 3).clamp(min=0)
    found = expand(*arguments(index, pair.key, [max(pair.key)] * dims, backend))
    for b, h, i in product(range(pair.batch), range(pair.heads), range(prod(pair.query))):
        assert sorted(keys_of(found, b, h, i)) == list(range(prod(pair.key)))


@pytest.mark.parametrize("label", ["free", "masks", "offset", "causal", "strict", "all"])
@pytest.mark.parametrize("name", ["1d", "2d", "3d"])
def test_opcheck(backend: str, name: str, label: str) -> None:
    pair = PAIRS[name]
    index = random_index(pair, 2)
    check_operator(expand, arguments(index, pair.key, RADIUS[pair.dims], backend, constraints_of(label, pair)))


CONSTRAINED = [(name, label) for name in PAIRS for label in CONSTRAINTS]
CONSTRAINED += [(name, label) for name in SAME_SIZE for label in CAUSAL]


@pytest.mark.parametrize(("name", "label"), CONSTRAINED)
def test_strides_do_not_matter(backend: str, name: str, label: str) -> None:
    pair = PAIRS[name]
    index, c = random_index(pair, 2), constraints_of(label, pair)
    other = Constraints(
        *(None if m is None else strided(m) for m in (c.query_mask, c.key_mask)),
        c.is_causal,
        (),
        c.max_offset,
        c.strict,
    )
    found = expand(*arguments(strided(index), pair.key, RADIUS[pair.dims], backend, other))
    assert torch.equal(found, expand(*arguments(index, pair.key, RADIUS[pair.dims], backend, c)))
    assert found.is_contiguous()


@pytest.mark.parametrize("size", [(1,), (2,), (1, 1), (1, 7), (5, 1), (1, 1, 1), (1, 3, 1), (3, 1, 2)])
def test_odd_sizes(backend: str, size: tuple[int, ...]) -> None:
    pair = Pair((1,) * len(size), size, (1,) * len(size))
    found = expand(*arguments(random_index(pair, 1).clamp(min=0), size, [max(size)] * len(size), backend))
    assert sorted(keys_of(found, 0, 0, 0)) == list(range(prod(size)))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_nothing_matched_is_nothing_reached(backend: str, dims: int) -> None:
    pair = SMALL[f"{dims}d"]
    index = torch.full_like(random_index(pair, 3), -1)
    assert (expand(*arguments(index, pair.key, RADIUS[dims], backend)) == -1).all()


@pytest.mark.parametrize("which", ["query_mask", "key_mask"])
def test_nothing_allowed_is_nothing_reached(backend: str, which: str) -> None:
    pair = SMALL["2d"]
    nothing = Constraints(**{which: torch.zeros(1, *pair.query, dtype=torch.bool)})
    assert (expand(*arguments(random_index(pair, 3), pair.key, [1, 1], backend, nothing)) == -1).all()


def test_inputs_stay_as_they_are(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    inputs = random_index(pair, 2), mask(1, *pair.query, share=0.7), mask(pair.batch, *pair.key, share=0.7)
    before = [x.clone() for x in inputs]
    expand(*arguments(inputs[0], pair.key, [1, 2], backend, Constraints(*inputs[1:])))
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))
