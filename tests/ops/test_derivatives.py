"""Derivatives of every order and direction, and `torch.vmap`, of the operators that have a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from patchattn.ops.attend import attend, attend_backward, attend_operator
from patchattn.ops.similarity_at import similarity_at
from patchattn.ops.similarity_operators import similarity_at_backward, similarity_operator, similarity_tangent
from patchattn.ops.weighted_sum import weighted_sum, weighted_sum_backward
from tests.cases import (
    COMPILED,
    PAIRS,
    SIMILARITIES,
    TOLERANCE,
    Pair,
    check_operator,
    fewer,
    geometry,
    integers,
    normals,
    random_index,
    strided,
)
from tests.kernels.parity import assert_close, both

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SMALL = {
    "1d": Pair((4,), (5,), (3,), heads=2),
    "2d": Pair((2, 3), (4, 2), (3, 3), shared=True),
    "3d": Pair((2, 2, 3), (2, 3, 2), (3, 1, 3), batch=1),
}
BUILT_IN = [name for name in SIMILARITIES if name != "pointwise"]

Case = tuple[Callable[..., Tensor], tuple[Tensor, ...]]


def summing(pair: Pair, backend: str) -> Case:
    index = random_index(pair, 2)
    value = normals(1 if pair.shared else pair.batch, 4, *pair.key, seed=2)
    return lambda w, v: weighted_sum(w, index, v, backend), (normals(*index.shape, seed=1), value)


def attending(pair: Pair, backend: str, window: tuple[int, ...] | None = None) -> Case:
    index = random_index(pair, 2)
    value = normals(1 if pair.shared else pair.batch, 4, *pair.key, seed=2)
    settings = (window or (1,) * pair.dims, 0.7, backend)
    return lambda s, v: attend(s, index, v, *settings), (normals(*index.shape, seed=1), value)


def comparing(pair: Pair, backend: str, similarity: str = "l2", padding: str = "reflect") -> Case:
    index = random_index(pair, 2)
    settings = (geometry(pair.patch, padding, pair.heads, similarity), backend)
    # -inf, where there is no match, has no derivative.
    return (
        lambda q, k: torch.where(index >= 0, similarity_at(q, k, index, *settings), 0),
        pair.features(normals),
    )


def check(backend: str, case: Case, *, again: bool = True) -> None:
    """First and second derivatives, forward and backward, along a random direction, one at a time and many at once.

    The second are formulas of the operators, the same for all backends: for gpu, in Triton's interpreter, one case of
    each operator has them.
    """
    function, inputs = case
    inputs = tuple(x.requires_grad_() for x in inputs)
    assert gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=backend == "cpu", fast_mode=True)
    if again:
        assert gradgradcheck(function, inputs, check_fwd_over_rev=True, check_rev_over_rev=True, fast_mode=True)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("aggregate", [False, True])
def test_attend(backend: str, name: str, aggregate: bool) -> None:
    again = fewer(backend, True, name == "1d")
    check(backend, attending(SMALL[name], backend, SMALL[name].patch if aggregate else None), again=again)


@pytest.mark.parametrize("name", SMALL)
def test_weighted_sum(backend: str, name: str) -> None:
    check(backend, summing(SMALL[name], backend), again=fewer(backend, True, name == "1d"))


@pytest.mark.parametrize("similarity", BUILT_IN)
def test_similarity_at(backend: str, similarity: str) -> None:
    check(backend, comparing(SMALL["2d"], backend, similarity), again=backend != "gpu")


@pytest.mark.parametrize(("name", "padding"), [("1d", "zeros"), ("3d", "replicate")])
def test_similarity_at_in_other_dimensions(backend: str, name: str, padding: str) -> None:
    check(backend, comparing(SMALL[name], backend, "cosine", padding), again=fewer(backend, True, name == "1d"))


def test_a_similarity_with_first_derivatives_alone(backend: str) -> None:
    case = comparing(SMALL["2d"], backend, "pointwise")
    check(backend, case, again=False)
    function, inputs = case
    gradients = torch.autograd.grad(function(*inputs).square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="has no second derivative; pointwise_similarity"):
        gradients[0].square().sum().backward()


def test_half_precision_keeps_its_dtype(backend: str) -> None:
    pair = PAIRS["2d_sizes"]
    index = random_index(pair, 2)
    query, key = (x.half().requires_grad_() for x in pair.features(normals))
    value = normals(pair.batch, 4, *pair.key).half().requires_grad_()
    settings = (geometry(pair.patch, "reflect", pair.heads, "l2"), backend)
    output = attend(similarity_at(query, key, index, *settings), index, value, (3, 3), 5.0, backend)
    gradients = torch.autograd.grad(output.float().square().sum(), (query, key, value), create_graph=True)
    assert [x.dtype for x in gradients] == [torch.float16] * 3
    second = torch.autograd.grad(sum(x.float().square().sum() for x in gradients), (query, key, value))
    assert all(x.dtype == torch.float16 and x.isfinite().all() for x in second)


@pytest.mark.parametrize(
    ("similarity", "expected"),
    [("l2", 20.0), ("l1", 10.0), ("dot", 31.0), ("scaled_dot", 31.0 / 3**0.5), ("pointwise", 10.0)],
)
def test_known_tangent(backend: str, similarity: str, expected: float) -> None:
    query, key = torch.tensor([[[3.0, 1.0, 2.0]]]), torch.tensor([[[2.0, 0.0, 1.0]]])  # all differences are 1
    by_query, by_key = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[4.0, 10.0, 2.0]]])
    index = torch.tensor([[[[-1, 1, -1]]]], dtype=torch.int32)
    patches = geometry((3,), "zeros", 1, similarity)
    found = similarity_tangent(query, key, index, by_query, by_key, patches, backend)
    # The sum of v - u is 16 - 6, that of u k is 2 + 0 + 3, that of q v is 12 + 10 + 4.
    torch.testing.assert_close(found, torch.tensor([[[[0.0, expected, 0.0]]]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("similarity", [name for name in SIMILARITIES if name != "cosine"])
def test_tangents_of_all_backends(compiled: str, name: str, similarity: str) -> None:
    pair = PAIRS[name].on(compiled)
    query, key = pair.features(normals)
    by_query, by_key = pair.features(normals, seed=5)
    query[0, 0].flatten()[3], key[0, 1].flatten()[1] = torch.nan, torch.inf  # no similarity, so no change of it either
    patches = geometry(pair.patch, "reflect", pair.heads, similarity)
    inputs = (strided(x) for x in (query, key, random_index(pair, 3), by_query, by_key))
    found, expected = both(compiled, "similarity_tangent", *inputs, patches)
    assert expected.isfinite().all()
    assert found.is_contiguous()
    assert expected.is_contiguous()
    assert_close(found, expected, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opcheck(backend: str, dtype: torch.dtype) -> None:
    pair = PAIRS["2d_shared"]
    index = random_index(pair, 2)
    patches = geometry(pair.patch, "reflect", pair.heads, "l2")
    images = [x.to(dtype).requires_grad_() for seed in (0, 5) for x in pair.features(normals, seed=seed)]
    check_operator(
        similarity_tangent,
        (*images[:2], index, *images[2:], patches, backend),
    )


def test_opcheck_of_gradients(backend: str) -> None:
    """Whose own gradients are registered as well."""
    pair = fewer(backend, PAIRS["2d_shared"], SMALL["2d"])
    index = random_index(pair, 2).clamp(min=0)
    query, key, value = (x.requires_grad_() for x in (*pair.features(normals), normals(1, 4, *pair.key)))
    grad = normals(*index.shape, seed=3).requires_grad_()
    patches = geometry(pair.patch, "zeros", 1, "l2")
    check_operator(similarity_at_backward, (grad, query, key, index, patches, backend))
    grad_output = normals(pair.batch, 4, *pair.query, seed=4).requires_grad_()
    check_operator(weighted_sum_backward, (grad_output, grad, index, value, backend))
    output, normalizer = attend_operator(grad.detach(), index, value.detach(), [3, 3], 0.7, backend)
    check_operator(attend_backward, (grad_output, grad, index, value, output, normalizer, [3, 3], 0.7, backend))


def test_what_is_zero_in_all_of_a_patch_has_no_norm(backend: str) -> None:
    query, key = (x.double().requires_grad_() for x in (integers(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)))
    index = torch.zeros(1, 1, 1, 3, 3, dtype=torch.int32)
    found = similarity_at(query, key, index, geometry((3, 3), "reflect", 1, "cosine"), backend)
    first = torch.autograd.grad(found.sum(), (query, key), create_graph=True)
    second = torch.autograd.grad(sum(x.square().sum() for x in first), (query, key))
    assert all((x == 0).all() for x in (*first, *second))


def mapped(function: Any, inputs: tuple[Any, ...], in_dims: tuple[int | None, ...], size: int) -> tuple[Any, Any]:
    """What `torch.vmap` gives, and a loop."""
    entries = (
        [x if dim is None else x.select(dim, n) for x, dim in zip(inputs, in_dims, strict=True)] for n in range(size)
    )
    parts = [function(*entry) for entry in entries]
    stacked = tuple(map(torch.stack, zip(*parts, strict=True))) if isinstance(parts[0], tuple) else torch.stack(parts)
    return torch.vmap(function, in_dims)(*inputs), stacked


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("in_dims", [(0, 0, 0), (1, None, 2), (None, 3, None), (None, None, 0), (0, None, None)])
def test_vmap(backend: str, in_dims: tuple[int | None, ...], shared: bool) -> None:
    pair = fewer(backend, Pair((3, 4), (4, 3), (3, 3), shared=shared), Pair((2,), (3,), (3,), shared=shared))
    size = 3

    def many(entry: Tensor, dim: int | None, seed: int) -> Tensor:
        if dim is None:
            return entry
        if entry.dtype == torch.int32:
            return torch.stack([random_index(pair, 2, seed=n) for n in range(size)], dim)
        return torch.stack([normals(*entry.shape, seed=seed + n) for n in range(size)], dim)

    index = random_index(pair, 2)
    weight, value = normals(*index.shape), normals(1 if shared else 2, 4, *pair.key)
    grad = normals(2, 4, *pair.query, seed=9)
    triple = tuple(many(x, dim, 10 * n) for n, (x, dim) in enumerate(zip((weight, index, value), in_dims, strict=True)))
    for function in (
        lambda w, i, v: weighted_sum(w, i, v, backend),
        lambda w, i, v: weighted_sum_backward(grad, w, i, v, backend),
        lambda w, i, v: attend_operator(w, i, v, pair.patch, 0.7, backend),
        lambda w, i, v: attend_backward(
            grad, w, i, v, *attend_operator(w, i, v, pair.patch, 1.0, backend), pair.patch, 1.0, backend
        ),
    ):
        found, expected = mapped(function, triple, in_dims, size)
        torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
    query, key = pair.features(normals)
    settings = (geometry(pair.patch, "reflect", 1, "cosine"), backend)
    images = tuple(many(x, dim, 50 * n) for n, (x, dim) in enumerate(zip((query, index, key), in_dims, strict=True)))
    for function in (
        lambda q, i, k: similarity_operator(q, k, i, *settings),
        lambda q, i, k: similarity_at(q, k, i, *settings),
        lambda q, i, k: similarity_at_backward(weight, q, k, i, *settings),
    ):
        found, expected = mapped(function, images, in_dims, size)
        torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
