"""Operator `patchattn::similarity_at` and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.similarity_operators import similarity_at_backward, similarity_operator
from tests.cases import (
    COMPILED,
    PADDINGS,
    PAIRS,
    SIMILARITIES,
    Pair,
    check_operator,
    fewer,
    geometry,
    gradcheck,
    integers,
    normals,
    random_index,
    strided,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SMALL = {
    "1d": Pair((4,), (5,), (5,), heads=2),
    "2d": Pair((2, 3), (4, 2), (3, 3), shared=True),
    "3d": Pair((2, 2, 3), (2, 3, 2), (3, 1, 3), batch=1),
}
"""Small enough to differentiate numerically; nearly every patch crosses a border."""


def where_matched(found: Tensor, index: Tensor) -> Tensor:
    """-inf, where there is no match, has no derivative."""
    return torch.where(index >= 0, found, 0)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [
        ("l2", [-(2.0**2 + 1 + 1), -3.0]),
        ("l1", [-4.0, -3.0]),
        ("dot", [1 * 3 + 2 * 1 + 3 * 2, 2 * 1 + 3 * 2 + 2 * 3]),
        ("scaled_dot", [11 / 3**0.5, 14 / 3**0.5]),
        ("cosine", [11 / 14, 14 / (17 * 14) ** 0.5]),
        ("pointwise", [-3.0, -1.5]),
    ],
)
def test_known_answer(backend: str, similarity: str, expected: list[float]) -> None:
    query = torch.tensor([[[1.0, 2.0, 3.0]]])
    key = torch.tensor([[[3.0, 1.0, 2.0, 3.0]]])
    index = torch.tensor([[[[-1, 1, 2]]]], dtype=torch.int32)
    found = similarity_at(query, key, index, geometry([3], "reflect", 1, similarity), backend).flatten()
    # The last query's patch is (2, 3, 2), by reflection; it meets (1, 2, 3).
    torch.testing.assert_close(found, torch.tensor([-torch.inf, *expected]), rtol=1e-6, atol=0)


# The reference, slow as it is, is compared with finite differences in its own tests too.
@pytest.mark.parametrize(
    ("backend", "name"), [(compiled, name) for compiled in COMPILED for name in SMALL] + [("reference", "2d")]
)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_gradcheck(backend: str, name: str, similarity: str, padding: str) -> None:
    pair = SMALL[name]
    query, key = (x.requires_grad_() for x in pair.features(normals, channels=2))
    index = random_index(pair, 2)
    settings = (geometry(pair.patch, padding, pair.heads, similarity), backend)
    assert gradcheck(backend, lambda q, k: where_matched(similarity_at(q, k, index, *settings), index), (query, key))


@pytest.mark.parametrize("wanted", ["query", "key"])
def test_gradient_of_one_input_alone(backend: str, wanted: str) -> None:
    pair = SMALL["2d"]
    query, key = pair.features(normals)
    (query if wanted == "query" else key).requires_grad_()
    index = random_index(pair, 2)
    assert gradcheck(
        backend,
        lambda q, k: where_matched(similarity_at(q, k, index, geometry([3, 3], "reflect", 1, "l2"), backend), index),
        (query, key),
    )


@pytest.mark.parametrize("similarity", ["l2", "cosine", "pointwise"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opcheck(backend: str, similarity: str, dtype: torch.dtype) -> None:
    pair = fewer(backend, PAIRS["2d_sizes"], SMALL["2d"])
    query, key = (x.to(dtype).requires_grad_() for x in pair.features(normals))
    # Every place holds a match: the tools compare with themselves, and infinities minus infinities are no numbers.
    index = random_index(pair, 3).clamp(min=0)
    settings = (geometry(pair.patch, "reflect", pair.heads, similarity), backend)
    check_operator(similarity_operator, (query, key, index, *settings))
    grad = normals(*index.shape).to(torch.float64 if dtype == torch.float64 else torch.float32)
    check_operator(similarity_at_backward, (grad, query.detach(), key.detach(), index, *settings))


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "2d_shared", "3d"])
def test_strides_do_not_matter(backend: str, name: str) -> None:
    pair = PAIRS[name]
    query, key = pair.features(normals)
    index = random_index(pair, 3)
    grad = normals(*index.shape, seed=3)
    settings = (geometry(pair.patch, "reflect", pair.heads, "l2"), backend)
    plain = similarity_at(query, key, index, *settings)
    again = similarity_at(strided(query), strided(key), strided(index), *settings)
    assert torch.equal(again, plain)
    assert again.is_contiguous()
    expected = similarity_at_backward(grad, query, key, index, *settings)
    found = similarity_at_backward(strided(grad), strided(query), strided(key), strided(index), *settings)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()


def test_no_match_passes_no_gradient(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(integers)
    index = torch.full_like(random_index(pair, 3), -1)
    grad = torch.full(index.shape, torch.nan)
    assert (similarity_at(query, key, index, geometry([3, 3], "zeros", 1, "l2"), backend) == -torch.inf).all()
    for gradient in similarity_at_backward(grad, query, key, index, geometry([3, 3], "zeros", 1, "l2"), backend):
        assert (gradient == 0).all()
