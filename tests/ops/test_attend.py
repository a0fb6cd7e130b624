"""Operator `patchattn::attend` and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from patchattn.ops.attend import attend_backward, attend_operator
from tests.cases import PAIRS, Pair, check_operator, gradcheck, normals, random_index, strided

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SMALL = {
    "1d": Pair((5,), (4,), (3,), heads=2),
    "2d": Pair((3, 4), (4, 3), (3, 3), shared=True),
    "3d": Pair((2, 2, 3), (2, 3, 2), (1, 3, 3), batch=1),
}


def inputs(pair: Pair, dtype: torch.dtype = torch.float64, k: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    index = random_index(pair, k)
    similarity = normals(*index.shape, seed=1, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    value = normals(1 if pair.shared else pair.batch, 4, *pair.key, seed=2, dtype=dtype)
    return similarity.where(index >= 0, -torch.inf), index, value


def test_known_answer(backend: str) -> None:
    # Weights 3/4 and 1/4; the second query has one match only, the third none.
    similarity = 0.5 * torch.tensor([[[[math.log(3), 5.0, -math.inf], [0.0, -math.inf, -math.inf]]]])
    index = torch.tensor([[[[0, 2, -1], [1, -1, -1]]]], dtype=torch.int32)
    value = torch.tensor([[[4.0, 8.0, 16.0], [1.0, 2.0, 3.0]]])
    output, normalizer = attend_operator(similarity, index, value, [1], 0.5, backend)
    torch.testing.assert_close(output, torch.tensor([[[5.0, 16.0, 0.0], [1.25, 3.0, 0.0]]]))
    torch.testing.assert_close(normalizer, torch.tensor([[[math.log(4), 5.0, -math.inf]]]))


def test_known_votes(backend: str) -> None:
    # Query 0 matches key 2, query 1 key 0, query 2 key 1. Query 0 hears 1, whose vote for 0 - 1 leaves the key; query 1
    # hears 0 (for 3, outside) and 2 (for 0); query 2 hears 1 (for 1).
    index = torch.tensor([[[[2, 0, 1]]]], dtype=torch.int32)
    similarity = torch.log(torch.tensor([[[[1.0, 3.0, 2.0]]]]))
    output, _ = attend_operator(similarity, index, torch.tensor([[[1.0, 10.0, 100.0]]]), [3], 1.0, backend)
    torch.testing.assert_close(output, torch.tensor([[[100.0, 1.0, 10.0]]]))


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck(backend: str, name: str, aggregate: bool) -> None:
    pair = SMALL[name]
    _, index, value = inputs(pair)
    window = [*pair.patch] if aggregate else [1] * pair.dims
    similarity = normals(*index.shape, seed=1).requires_grad_()
    assert gradcheck(
        backend,
        lambda s, v: attend_operator(s, index, v, window, 0.7, backend)[0],
        (similarity, value.requires_grad_()),
    )


@pytest.mark.parametrize("wanted", ["similarity", "value"])
def test_gradient_of_one_input_alone(backend: str, wanted: str) -> None:
    similarity, index, value = inputs(SMALL["2d"])
    similarity = similarity.where(index >= 0, 0)
    (similarity if wanted == "similarity" else value).requires_grad_()
    assert gradcheck(backend, lambda s, v: attend_operator(s, index, v, [3, 3], 1.0, backend)[0], (similarity, value))


def test_normalizer_has_no_gradient(backend: str) -> None:
    similarity, index, value = inputs(SMALL["2d"])
    _, normalizer = attend_operator(similarity.requires_grad_(), index, value, [1, 1], 1.0, backend)
    assert not normalizer.requires_grad


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opcheck(backend: str, dtype: torch.dtype, window: int) -> None:
    pair = PAIRS["2d_sizes"]
    similarity, index, value = inputs(pair, dtype)
    index = index.clamp(min=0)
    similarity = torch.where(similarity > -torch.inf, similarity, 0.5)
    settings = ([window] * pair.dims, 0.7, backend)
    check_operator(attend_operator, (similarity.requires_grad_(), index, value.requires_grad_(), *settings))
    similarity, value = similarity.detach(), value.detach()
    output, normalizer = attend_operator(similarity, index, value, *settings)
    grad = normals(*output.shape, dtype=dtype)
    check_operator(attend_backward, (grad, similarity, index, value, output, normalizer, *settings))


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "2d_shared", "3d"])
def test_strides_do_not_matter(backend: str, name: str) -> None:
    pair = PAIRS[name]
    similarity, index, value = inputs(pair)
    settings = ([*pair.patch], 0.7, backend)
    output, normalizer = attend_operator(similarity, index, value, *settings)
    found = attend_operator(strided(similarity), strided(index), strided(value), *settings)
    assert torch.equal(found[0], output)
    assert torch.equal(found[1], normalizer)
    assert all(x.is_contiguous() for x in found)
    grad = normals(*output.shape, seed=3)
    expected = attend_backward(grad, similarity, index, value, output, normalizer, *settings)
    tensors = (strided(x) for x in (grad, similarity, index, value, output, normalizer))
    for one, other in zip(attend_backward(*tensors, *settings), expected, strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()


def test_large_similarities_do_not_overflow(backend: str) -> None:
    index = torch.tensor([[[[0, 1], [1, 0]]]], dtype=torch.int32)
    value = torch.tensor([[[1.0, 2.0]]])
    similarity = torch.tensor([[[[-1e30, 3e38], [-2e30, -3e38]]]])
    output, normalizer = attend_operator(similarity, index, value, [1], 1.0, backend)
    assert output.tolist() == [[[1.0, 2.0]]]
    assert normalizer.isfinite().all()
    grads = attend_backward(torch.ones_like(output), similarity, index, value, output, normalizer, [1], 1.0, backend)
    assert all(grad.isfinite().all() for grad in grads)
    assert grads[1].tolist() == [[[1.0, 1.0]]]
