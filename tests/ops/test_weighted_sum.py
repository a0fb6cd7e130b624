"""Operator `patchattn::weighted_sum` and its gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from patchattn.ops.weighted_sum import weighted_sum, weighted_sum_backward
from tests.cases import PAIRS, TOLERANCE, Pair, check_operator, gradcheck, normals, random_index, strided

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SMALL = {
    "1d": Pair((5,), (4,), (1,), heads=2),
    "2d": Pair((3, 4), (4, 3), (1, 1), shared=True),
    "3d": Pair((2, 2, 3), (2, 3, 2), (1, 1, 1), batch=1, heads=2),
}


def inputs(pair: Pair, dtype: torch.dtype = torch.float64, k: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    index = random_index(pair, k)
    weight = normals(*index.shape, seed=1, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    value = normals(1 if pair.shared else pair.batch, 4, *pair.key, seed=2, dtype=dtype)
    return weight, index, value


def nan_where_unmatched(weight: Tensor, index: Tensor) -> Tensor:
    return weight.where(index >= 0, torch.nan)


def test_known_answer(backend: str) -> None:
    # Weights need not sum to one, nor be positive. The second query has one key only, the third none.
    weight = torch.tensor([[[[0.5, 5.0, 1.0], [-2.0, 1.0, 1.0]]]])
    index = torch.tensor([[[[0, 2, -1], [1, -1, -1]]]], dtype=torch.int32)
    value = torch.tensor([[[4.0, 8.0, 16.0], [1.0, 2.0, 3.0]]])
    output = weighted_sum(weight, index, value, backend)
    assert output.tolist() == [[[-14.0, 80.0, 0.0], [-3.5, 15.0, 0.0]]]


def test_known_gradients(backend: str) -> None:
    weight = torch.tensor([[[[0.5, 5.0], [-2.0, 1.0]]]])
    index = torch.tensor([[[[0, 2], [1, -1]]]], dtype=torch.int32)
    value = torch.tensor([[[4.0, 8.0, 16.0]]])
    grads = weighted_sum_backward(torch.tensor([[[1.0, 10.0]]]), weight, index, value, backend)
    assert grads[0].tolist() == [[[[4.0, 160.0], [8.0, 0.0]]]]
    assert grads[1].tolist() == [[[0.5, -2.0, 50.0]]]


def test_each_head_weighs_its_own_channels(backend: str) -> None:
    weight = torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    index = torch.tensor([1, 0]).int().view(1, 2, 1, 1)
    value = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]])
    assert weighted_sum(weight, index, value, backend).tolist() == [[[2.0], [4.0], [50.0], [70.0]]]


def test_a_shared_value_is_the_same_for_all(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    weight, index, value = inputs(pair)
    copies = value.expand(pair.batch, *value.shape[1:])
    output = weighted_sum(weight, index, value, backend)
    assert torch.equal(output, weighted_sum(weight, index, copies, backend))
    grad = normals(*output.shape, seed=3)
    shared = weighted_sum_backward(grad, weight, index, value, backend)
    single = weighted_sum_backward(grad, weight, index, copies.contiguous(), backend)
    assert torch.equal(shared[0], single[0])
    torch.testing.assert_close(shared[1], single[1].sum(0, keepdim=True), **TOLERANCE[torch.float64])


@pytest.mark.parametrize("name", SMALL)
def test_gradcheck(backend: str, name: str) -> None:
    weight, index, value = inputs(SMALL[name])
    assert gradcheck(
        backend, lambda w, v: weighted_sum(w, index, v, backend), (weight.requires_grad_(), value.requires_grad_())
    )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("wanted", ["weight", "value"])
def test_gradient_of_one_input_alone(backend: str, name: str, wanted: str) -> None:
    weight, index, value = inputs(SMALL[name])
    (weight if wanted == "weight" else value).requires_grad_()
    assert gradcheck(backend, lambda w, v: weighted_sum(w, index, v, backend), (weight, value))


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_no_key_are_not_looked_at(backend: str, name: str) -> None:
    weight, index, value = inputs(SMALL[name])
    unknown = nan_where_unmatched(weight, index)
    assert unknown.isnan().any()
    output = weighted_sum(weight, index, value, backend)
    assert torch.equal(weighted_sum(unknown, index, value, backend), output)
    grad = normals(*output.shape, seed=3)
    expected = weighted_sum_backward(grad, weight, index, value, backend)
    found = weighted_sum_backward(grad, unknown, index, value, backend)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert (found[0][index < 0] == 0).all()


def test_no_key_at_all_passes_nothing(backend: str) -> None:
    weight, index, value = inputs(PAIRS["2d_shared"])
    index = torch.full_like(index, -1)
    weight = torch.full_like(weight, torch.nan)
    output = weighted_sum(weight, index, value, backend)
    assert (output == 0).all()
    grad = torch.full_like(output, torch.nan)
    for gradient in weighted_sum_backward(grad, weight, index, value, backend):
        assert (gradient == 0).all()


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "2d_shared", "3d"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opcheck(backend: str, dtype: torch.dtype, name: str) -> None:
    weight, index, value = inputs(PAIRS[name], dtype)
    weight = nan_where_unmatched(weight, index)
    check_operator(weighted_sum, (weight.requires_grad_(), index, value.requires_grad_(), backend))
    weight, value = weight.detach(), value.detach()
    grad = normals(*weighted_sum(weight, index, value, backend).shape, dtype=dtype)
    check_operator(weighted_sum_backward, (grad, weight, index, value, backend))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(backend: str, dtype: torch.dtype) -> None:
    weight, index, value = inputs(PAIRS["2d_sizes"], dtype, k=9)
    output = weighted_sum(weight, index, value, backend)
    assert output.dtype == dtype
    wide = weighted_sum(weight, index, value.float(), backend)
    assert torch.equal(output, wide.to(dtype))
    grad = normals(*output.shape, seed=3, dtype=dtype)
    grad_weight, grad_value = weighted_sum_backward(grad, weight, index, value, backend)
    assert (grad_weight.dtype, grad_value.dtype) == (torch.float32, dtype)
    expected = weighted_sum_backward(grad.float(), weight, index, value.float(), backend)
    assert torch.equal(grad_weight, expected[0])
    assert torch.equal(grad_value, expected[1].to(dtype))


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "2d_shared", "3d"])
def test_strides_do_not_matter(backend: str, name: str) -> None:
    weight, index, value = inputs(PAIRS[name])
    output = weighted_sum(weight, index, value, backend)
    found = weighted_sum(strided(weight), strided(index), strided(value), backend)
    assert torch.equal(found, output)
    assert found.is_contiguous()
    grad = normals(*output.shape, seed=3)
    expected = weighted_sum_backward(grad, weight, index, value, backend)
    tensors = (strided(x) for x in (grad, weight, index, value))
    for one, other in zip(weighted_sum_backward(*tensors, backend), expected, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()


@pytest.mark.parametrize("size", [(1,), (7,), (1, 1), (1, 5), (3, 1), (1, 1, 1), (2, 1, 3)])
def test_odd_sizes(backend: str, size: tuple[int, ...]) -> None:
    # Key j of every query is j itself, so that a whole weighted sum is a product of matrices.
    keys = torch.arange(torch.Size(size).numel()).int()
    index = keys.view(1, 1, -1, *(1,) * len(size)).expand(1, 1, -1, *size)
    weight, value = normals(*index.shape), normals(1, 3, *size, seed=1)
    expected = value.flatten(2) @ weight.flatten(3)[:, 0]
    output = weighted_sum(weight, index, value, backend)
    torch.testing.assert_close(output, expected.view_as(output), **TOLERANCE[torch.float64])


def test_inputs_stay_as_they_are(backend: str) -> None:
    tensors = inputs(PAIRS["2d_shared"])
    before = [x.clone() for x in tensors]
    output = weighted_sum(*tensors, backend)
    weighted_sum_backward(output, *tensors, backend)
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))


def test_the_gradient_is_the_same_bits_every_time(backend: str) -> None:
    weight, index, value = inputs(PAIRS["2d_shared"], torch.float32, k=8)
    index = index % 3
    grad = normals(*weighted_sum(weight, index, value, backend).shape, seed=3, dtype=torch.float32)
    first = weighted_sum_backward(grad, weight, index, value, backend)
    for _ in range(3):
        again = weighted_sum_backward(grad, weight, index, value, backend)
        assert all(torch.equal(x, y) for x, y in zip(first, again, strict=True))
