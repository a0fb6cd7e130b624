"""Fields with so many matches that all pairs are computed: the same numbers as match by match."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from patchattn.kernels import load_backend
from patchattn.kernels.cpu import batch, dense_attend, dense_similarity, exponential
from patchattn.kernels.cpu.compiler import kernel
from patchattn.ops.attend import attend_operator
from patchattn.ops.similarity_at import similarity_at
from tests.cases import PADDINGS, PAIRS, Pair, geometry, gradcheck, integers, normals, random_index
from tests.kernels.parity import assert_close, both

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

# The package has functions of these names.
attend, similarity = (import_module(f"patchattn.kernels.cpu.{name}") for name in ("attend", "similarity"))

DENSE = ("l2", "dot", "scaled_dot", "cosine")
SMALL = {
    "1d": Pair((4,), (5,), (5,), heads=2),
    "2d": Pair((2, 3), (4, 2), (3, 3), shared=True),
    "3d": Pair((2, 2, 3), (2, 3, 2), (3, 1, 3), batch=1),
}
"""Small enough to differentiate numerically."""


@pytest.fixture
def dense(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """All pairs, for whatever number of matches, in boxes of few queries; which of the four functions ran."""
    ran: set[str] = set()

    def noted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def note(*arguments: Any) -> Any:
            ran.add(name)
            return function(*arguments)

        monkeypatch.setattr(module, name, note)

    monkeypatch.setattr(similarity, "dense_costs", lambda *_: 0)
    monkeypatch.setattr(similarity, "OVERHEAD", -1)
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(attend, name, 1 << 40)
    monkeypatch.setattr(dense_similarity, "BYTES", 1 << 14)
    monkeypatch.setattr(dense_attend, "BYTES", 1 << 10)
    for name in ("similarities", "add_gradients"):
        noted(dense_similarity.Dense, name)
    for name in ("dense_attend", "dense_attend_backward"):
        noted(attend, name)
    return ran


def with_duplicates(index: Tensor) -> Tensor:
    index[:, :, 1] = index[:, :, 0]
    return index


@pytest.mark.every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("kind", DENSE)
def test_similarity_as_the_reference(dense: set[str], kind: str, name: str, dtype: torch.dtype) -> None:
    pair = PAIRS[name]
    query, key = (x.to(dtype) for x in pair.features(normals))
    index, geometry = with_duplicates(random_index(pair, 9)), pair.geometry(kind)
    assert_close(*both("cpu", "similarity_at", query, key, index, geometry), dtype)
    grad = normals(*index.shape, seed=3, dtype=dtype)
    grad[:, :, 2] = 0
    found, expected = both("cpu", "similarity_at_backward", grad, query, key, index, geometry)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one / other.abs().max(), other / other.abs().max(), rtol=0, atol=TOLERANCE[dtype])
    assert dense == {"similarities", "add_gradients"}


TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}
"""Of gradients, relative to the largest: sums of thousands of terms."""


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kind", ["l2", "dot"])
def test_sums_of_integers_are_exact(dense: set[str], kind: str, padding: str) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(integers)
    index, geometry = with_duplicates(random_index(pair, 30)), pair.geometry(kind, padding)
    found, expected = both("cpu", "similarity_at", query, key, index, geometry)
    assert torch.equal(found, expected)
    grad = integers(*index.shape, seed=3)
    found, expected = both("cpu", "similarity_at_backward", grad, query, key, index, geometry)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert dense == {"similarities", "add_gradients"}


def test_near_distances_lose_no_digits(dense: set[str]) -> None:
    pair = Pair((6, 7), (6, 7), (3, 3), batch=1)
    query = normals(1, 4, 6, 7).float() + 1000
    key = query + 1e-2 * normals(1, 4, 6, 7, seed=1).float()
    index = torch.arange(42).int().view(1, 1, 42, 1, 1).expand(1, 1, 42, 6, 7)
    found = load_backend("cpu").similarity_at(query, key, index, pair.geometry())
    expected = load_backend("reference").similarity_at(query.double(), key.double(), index, pair.geometry())
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    assert dense == {"similarities"}


@pytest.mark.every_pair
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("kind", DENSE)
def test_gradcheck_of_similarity(dense: set[str], kind: str, name: str, padding: str) -> None:
    pair = SMALL[name]
    query, key = (x.requires_grad_() for x in pair.features(normals, channels=2))
    index = random_index(pair, 6)

    def function(q: Tensor, k: Tensor) -> Tensor:
        return similarity_at(q, k, index, geometry(pair.patch, padding, pair.heads, kind), "cpu").where(index >= 0, 0)

    assert gradcheck("cpu", function, (query, key))
    assert dense == {"similarities", "add_gradients"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_attend_as_the_reference(dense: set[str], name: str, dtype: torch.dtype) -> None:
    pair = PAIRS[name]
    index, window = with_duplicates(random_index(pair, 7)), (1,) * pair.dims
    index[..., 0] = -1
    similarities = normals(*index.shape, seed=4).to(torch.promote_types(dtype, torch.float32))
    similarities[:, :, 3] = -torch.inf
    similarities[:, :, 4] *= 10
    value = normals(1 if pair.shared else pair.batch, 8, *pair.key, seed=5).to(dtype)
    found, expected = both("cpu", "attend", similarities, index, value, window, 0.7)
    assert_close(found, expected, dtype)
    grad = normals(*found[0].shape, seed=6).to(dtype)
    gradients = both("cpu", "attend_backward", grad, similarities, index, value, *expected, window, 0.7)
    assert_close(*gradients, dtype)
    assert dense == {"dense_attend", "dense_attend_backward"}


@pytest.mark.parametrize("name", SMALL)
def test_gradcheck_of_attend(dense: set[str], name: str) -> None:
    pair = SMALL[name]
    index = random_index(pair, 6)
    value = normals(1 if pair.shared else pair.batch, 2 * pair.heads, *pair.key, seed=5).requires_grad_()
    similarities = normals(*index.shape, seed=4).requires_grad_()

    def function(s: Tensor, v: Tensor) -> Tensor:
        output: Tensor = attend_operator(s, index, v, [1] * pair.dims, 0.7, "cpu")[0]
        return output

    assert gradcheck("cpu", function, (similarities, value))
    assert dense == {"dense_attend", "dense_attend_backward"}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("kind", DENSE)
def test_what_no_match_takes_may_hold_anything(dense: set[str], kind: str, bad: float) -> None:
    """In pixels of key and value without a match, and of a query without one."""
    pair = Pair((5, 6), (6, 5), (3, 3), batch=1)
    query, key = pair.features(normals)
    value = normals(1, 2, *pair.key, seed=5)
    index = random_index(pair, 20)
    rows, columns = index // 5, index % 5
    index[((rows - 3).abs() <= 1) & ((columns - 2).abs() <= 1)] = -1
    index[..., 1:4, 2:5] = -1
    seen = []
    for number in (bad, 0.0):
        inputs = [x.clone() for x in (query, key, value)]
        inputs[0][..., 2, 3], inputs[1][..., 3, 2], inputs[2][..., 3, 2] = number, number, number
        for x in inputs:
            x.requires_grad_()
        found = similarity_at(inputs[0], inputs[1], index, geometry((3, 3), "reflect", 1, kind), "cpu")
        output = attend_operator(found, index, inputs[2], [1, 1], 1.0, "cpu")[0]
        seen.append([found, output, *torch.autograd.grad(output.square().sum(), inputs)])
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one, other)
    assert {"similarities", "add_gradients"} <= dense


def test_what_a_match_takes_stays_in_its_place(dense: set[str]) -> None:
    """NaN that has weight or gradient reaches what it belongs to, as match by match, and nothing else."""
    pair = Pair((5, 6), (6, 5), (3, 3), batch=1)
    query, key = pair.features(normals)
    key[..., 3, 2] = torch.nan
    index = random_index(pair, 20)
    grad = normals(*index.shape, seed=3)
    found, expected = both("cpu", "similarity_at_backward", grad, query, key, index, pair.geometry())
    torch.testing.assert_close(found, expected, equal_nan=True)
    value = normals(1, 2, *pair.key, seed=5)
    value[..., 3, 2] = torch.inf
    similarities = normals(*index.shape, seed=4)
    found, expected = both("cpu", "attend", similarities, index, value, (1, 1), 1.0)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert dense <= {"dense_attend"}


@pytest.mark.parametrize("heads", [1, 2])
def test_number_of_threads(dense: set[str], heads: int) -> None:
    pair = Pair((17, 19), (18, 15), (3, 5), heads=heads)
    query, key = (x.float() for x in pair.features(normals))
    index, value = random_index(pair, 40), normals(2, 4, *pair.key, seed=5).float()
    cpu = load_backend("cpu")

    def results() -> list[Tensor]:
        found = cpu.similarity_at(query, key, index, pair.geometry())
        output = cpu.attend(found, index, value, (1, 1), 1.0)
        return [
            found, *output, *cpu.similarity_at_backward(found.nan_to_num(neginf=0), query, key, index, pair.geometry()),
            *cpu.attend_backward(output[0], found, index, value, *output, (1, 1), 1.0),
        ]  # fmt: skip

    expected = results()
    torch.set_num_threads(5)
    try:
        found = results()
    finally:
        torch.set_num_threads(1)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert len(dense) == 4


def test_large_numbers_of_matches_are_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    """By themselves, and few are not."""
    seen = []
    monkeypatch.setattr(similarity.Dense, "similarities", lambda *arguments: seen.append(arguments))
    pair = Pair((24, 24), (24, 24), (7, 7), batch=1)
    query, key = (x.float() for x in pair.features(normals, channels=16))
    for k, expected in ((8, 0), (576, 1)):
        load_backend("cpu").similarity_at(query, key, random_index(pair, k), pair.geometry())
        assert len(seen) == expected


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_exponential(dtype: Any) -> None:
    @kernel(vectorize=True)
    def run(x: Any, y: Any) -> None:
        for n in range(x.size):
            y[n] = exponential.exp_of_negative(x[n])

    lowest = -86 if dtype == np.float32 else -707
    x = np.concatenate([np.linspace(lowest, 0, 5000), [0, -np.inf, np.nan, -1e30, -1e-9]]).astype(dtype)
    y = np.empty_like(x)
    run(x, y)
    np.testing.assert_allclose(y, np.exp(x.astype(np.longdouble)), rtol=1.5 * np.finfo(dtype).eps, atol=1e-300)


def test_groups_of_items_of_unequal_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five items, three at a time."""
    pair = Pair((5, 4), (6, 5), (1, 1), batch=5)
    monkeypatch.setattr(batch, "GROUP", 60)
    index, value = random_index(pair, 3), normals(5, 2, *pair.key)
    assert_close(*both("cpu", "attend", normals(*index.shape), index, value, (1, 1), 1.0), torch.float64)


def test_gradient_of_a_single_query() -> None:
    pair = Pair((1,), (6,), (1,), batch=1)
    query, key = pair.features(normals)
    index = torch.arange(6).int().view(1, 1, 6, 1)
    grad = normals(*index.shape, seed=3)
    assert_close(*both("cpu", "similarity_at_backward", grad, query, key, index, pair.geometry()), torch.float64)
