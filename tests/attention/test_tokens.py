"""`attend_at`: attention of tokens to keys given by index, against its definition on all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn import attend_at, match
from tests.cases import TOLERANCE, fewer, gradcheck, normals

pytestmark = pytest.mark.usefixtures("one_thread")

GROUPS = {"one": (1, 1), "each": (4, 4), "grouped": (4, 2), "all_share": (3, 1)}


def tokens(
    heads: int = 4, kv_heads: int = 2, n: int = 6, m: int = 9, batch: int = 2, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    query = normals(batch, heads, n, 5, seed=1, dtype=dtype)
    return (
        query,
        normals(batch, kv_heads, m, 5, seed=2, dtype=dtype),
        normals(batch, kv_heads, m, 3, seed=3, dtype=dtype),
    )


def positions(*shape: int, m: int = 9, seed: int = 0) -> Tensor:
    """Some -1, some twice; of the first query none is valid."""
    index = torch.randint(-1, m, shape, generator=torch.Generator().manual_seed(seed))
    index[:, :, :1] = -1
    return index


def definition(
    query: Tensor, key: Tensor, value: Tensor, index: Tensor, bias: Tensor | float = 0.0, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """The formula, with keys and values copied for every query and place."""
    batch, heads, n, channels = query.shape
    key, value = (x.repeat_interleave(heads // x.shape[1], 1) for x in (key, value))
    index = index.repeat_interleave(heads // index.shape[1], 1).expand(batch, -1, -1, -1).long()

    def named(x: Tensor) -> Tensor:
        copies = x.unsqueeze(2).expand(-1, -1, n, -1, -1)
        return copies.gather(3, index.clamp(min=0).unsqueeze(4).expand(-1, -1, -1, -1, x.shape[3]))

    factor = channels**-0.5 if scale is None else scale
    score = (factor * (query.unsqueeze(3) * named(key)).sum(4) + bias).masked_fill(index < 0, -torch.inf)
    weight = score.softmax(3).nan_to_num(0)
    return (weight.unsqueeze(4) * named(value)).sum(3), score.logsumexp(3)


@pytest.mark.parametrize("shared", ["heads", "kv_heads", "one"])
@pytest.mark.parametrize("groups", GROUPS)
def test_the_definition(backend: str, groups: str, shared: str) -> None:
    heads, kv_heads = GROUPS[groups]
    query, key, value = tokens(heads, kv_heads)
    index = positions(2, {"heads": heads, "kv_heads": kv_heads, "one": 1}[shared], 6, 5)
    bias = normals(2, heads, 6, 5, seed=4)
    found = attend_at(query, key, value, index, bias=bias, scale=0.7, return_lse=True, backend=backend)
    expected = definition(query, key, value, index, bias, 0.7)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE[torch.float64])
    assert (found[0][:, :, 0] == 0).all()
    assert (found[1][:, :, 0] == -torch.inf).all()
    output = attend_at(query, key, value, index.int(), backend=backend)
    torch.testing.assert_close(output, definition(query, key, value, index)[0], **TOLERANCE[torch.float64])


def test_all_keys_are_full_attention(backend: str) -> None:
    query, key, value = tokens()
    index = torch.arange(9).expand(1, 1, 6, 9)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(attend_at(query, key, value, index, backend=backend), expected)


def test_what_stands_twice_counts_twice(backend: str) -> None:
    query, key = torch.zeros(2, 1, 1, 1, 4)
    key, value = key.expand(1, 1, 2, 4), torch.tensor([0.0, 3.0]).view(1, 1, 2, 1)
    index = torch.tensor([0, 1, -1, 1]).view(1, 1, 1, 4)
    output, lse = attend_at(query, key, value, index, return_lse=True, backend=backend)
    assert output.item() == pytest.approx(2.0)
    assert lse.exp().item() == pytest.approx(3.0)


def test_an_infinite_bias_excludes_even_nan(backend: str) -> None:
    query, key, value = tokens(1, 1, batch=1)
    index, bias = torch.tensor([3, 4]).expand(1, 1, 6, 2), torch.tensor([0.0, -torch.inf])
    key[:, :, 4], value[:, :, 4] = torch.nan, torch.nan
    output = attend_at(query, key, value, index, bias=bias, backend=backend)
    torch.testing.assert_close(output, value[:, :, 3:4].expand(-1, -1, 6, -1))
    nothing, lse = attend_at(query, key, value, index, bias=bias - torch.inf, return_lse=True, backend=backend)
    assert (nothing == 0).all()
    assert (lse == -torch.inf).all()


def test_parts_are_put_together_by_their_lse(backend: str) -> None:
    query, key, value = tokens()
    index = torch.arange(9).expand(1, 1, 6, 9)
    whole, total = attend_at(query, key, value, index, return_lse=True, backend=backend)
    parts = [attend_at(query, key, value, part, return_lse=True, backend=backend) for part in index.split(4, 3)]
    outputs, lses = (torch.stack(x) for x in zip(*parts, strict=True))
    torch.testing.assert_close(lses.logsumexp(0), total)
    torch.testing.assert_close(((lses - total).exp().unsqueeze(4) * outputs).sum(0), whole)


@pytest.mark.parametrize("groups", GROUPS)
def test_gradcheck(backend: str, groups: str) -> None:
    heads, kv_heads = fewer(backend, GROUPS[groups], (2, 1))
    query, key, value = tokens(heads, kv_heads, n=3, m=4, batch=1)
    index = positions(1, kv_heads, 3, 4, m=4)
    bias = normals(heads, 1, 4, seed=4)
    inputs = tuple(x.requires_grad_() for x in (query, key, value, bias))

    def function(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        output, lse = attend_at(query, key, value, index, bias=bias, return_lse=True, backend=backend)
        return output, lse[:, :, 1:]  # minus infinity has no difference quotient

    assert gradcheck(backend, function, inputs)


def test_gradients_of_a_query_without_keys_are_zero(backend: str) -> None:
    inputs = [x.requires_grad_() for x in (*tokens(1, 1), normals(2, 1, 6, 3))]
    index = torch.full((2, 1, 6, 3), -1)
    output, lse = attend_at(*inputs[:3], index, bias=inputs[3], return_lse=True, backend=backend)
    (output.sum() + lse.sum()).backward()
    assert all((x.grad == 0).all() for x in inputs)


def test_gradients_of_gradients() -> None:
    query, key, value = tokens(2, 1, n=2, m=3, batch=1)
    index = positions(1, 1, 2, 3, m=3)
    inputs = tuple(x.requires_grad_() for x in (query, key, value))
    assert torch.autograd.gradgradcheck(lambda *x: attend_at(*x, index), inputs)
    _, tangent = torch.func.jvp(lambda *x: attend_at(*x, index), inputs, inputs)
    assert torch.isfinite(tangent).all()


def test_the_gradient_is_the_same_bits_every_time(backend: str) -> None:
    query, key, value = tokens(dtype=torch.float32)
    index = positions(2, 1, 6, 8) % 3

    def gradients() -> list[Tensor]:
        inputs = [x.detach().requires_grad_() for x in (query, key, value)]
        attend_at(*inputs, index, backend=backend).square().sum().backward()
        return [x.grad for x in inputs if x.grad is not None]

    first = gradients()
    assert len(first) == 3
    assert all(torch.equal(one, other) for _ in range(2) for one, other in zip(first, gradients(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision(backend: str, dtype: torch.dtype) -> None:
    query, key, value = tokens(dtype=dtype)
    index, bias = positions(2, 2, 6, 5), normals(2, 4, 6, 5, seed=4, dtype=dtype)
    output, lse = attend_at(query, key, value, index, bias=bias, return_lse=True, backend=backend)
    assert (output.dtype, lse.dtype) == (dtype, torch.float32)
    exact, exact_lse = definition(query.double(), key.double(), value.double(), index, bias.double())
    torch.testing.assert_close(output.double(), exact, **TOLERANCE[dtype])
    torch.testing.assert_close(lse.double(), exact_lse, **TOLERANCE[torch.float32])


def test_autocast_brings_precisions_together() -> None:
    query, key, value = tokens(dtype=torch.float32)
    index = positions(2, 1, 6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        output = attend_at(query.bfloat16(), key, value, index)
    assert torch.equal(output, attend_at(query.bfloat16().float(), key, value, index))


@pytest.mark.parametrize(
    ("batch", "n", "m", "k"), [(0, 6, 9, 3), (2, 0, 9, 3), (2, 6, 9, 0), (2, 6, 0, 3), (2, 0, 0, 0)]
)
def test_nothing(backend: str, batch: int, n: int, m: int, k: int) -> None:
    query, key, value = (x.requires_grad_() for x in tokens(n=n, m=m, batch=batch))
    index = torch.full((batch, 1, n, k), -1)
    output, lse = attend_at(query, key, value, index, return_lse=True, backend=backend)
    assert output.shape == (batch, 4, n, 3)
    assert (output == 0).all()
    assert lse.shape == (batch, 4, n)
    assert (lse == -torch.inf).all()
    (output.sum() + lse.sum()).backward()
    assert all(x.grad is not None and (x.grad == 0).all() for x in (query, key, value))


@settings(max_examples=25)
@given(st.data())
def test_any_shape(data: st.DataObject) -> None:
    size = st.integers(1, 6)
    kv_heads, group, batch, n, m, k = (data.draw(size) for _ in range(6))
    heads = kv_heads * group
    query, key, value = tokens(heads, kv_heads, n, m, batch)
    shape = (data.draw(st.sampled_from([1, batch])), data.draw(st.sampled_from([1, kv_heads, heads])), n, k)
    index = torch.randint(-1, m, shape, generator=torch.Generator().manual_seed(n))
    bias = normals(*(data.draw(st.sampled_from([1, full])) for full in (batch, heads, n, k)))
    found = attend_at(query, key, value, index, bias=bias, return_lse=True)
    for one, other in zip(found, definition(query, key, value, index, bias), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE[torch.float64])


def test_compiled_without_a_graph_break() -> None:
    index, bias = positions(2, 2, 6, 5), normals(4, 6, 5, seed=4, dtype=torch.float32)

    def function(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return attend_at(query, key, value, index, bias=bias, return_lse=True)

    results = []
    for called in (function, torch.compile(function, fullgraph=True)):
        inputs = [x.requires_grad_() for x in tokens(dtype=torch.float32)]
        output, lse = called(*inputs)
        (output.square().sum() + lse[:, :, 1:].sum()).backward()
        results.append([output, lse, *(x.grad for x in inputs)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_vmap() -> None:
    query, key, value = tokens()
    index = positions(2, 2, 6, 5)
    mapped = torch.vmap(lambda q, k, v, i: attend_at(q[None], k[None], v[None], i[None])[0])(query, key, value, index)
    torch.testing.assert_close(mapped, attend_at(query, key, value, index))


def test_layout_does_not_matter(backend: str) -> None:
    query, key, value = tokens()
    index = positions(2, 2, 6, 5)
    apart = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (query, key, value)]
    found = attend_at(*apart, index.transpose(2, 3).contiguous().transpose(2, 3), backend=backend)
    torch.testing.assert_close(found, attend_at(query, key, value, index, backend=backend), rtol=0, atol=0)


def test_matches_as_an_index() -> None:
    query, key, value = normals(3, 2, 1, 8, 30, dtype=torch.float32)[:, :, 0]
    field = match(query, key, k=4, similarity="scaled_dot", num_heads=2)
    split = [x.unflatten(1, (2, 4)).transpose(2, 3) for x in (query, key, value)]
    output, lse = attend_at(*split, field.index.transpose(2, 3), return_lse=True)
    torch.testing.assert_close(lse, field.similarity.logsumexp(2))
    assert output.shape == (2, 2, 30, 4)


QUERY, KEY, VALUE = tokens(dtype=torch.float32)
INDEX = positions(2, 2, 6, 5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": QUERY[0]}, r"query: expected \(batch, heads, n, d\), got shape \(4, 6, 5\)"),
        ({"key": KEY.tolist()}, r"key: expected a tensor \(batch, kv_heads, m, d\), got list"),
        ({"query": QUERY.int()}, "query: expected float16, bfloat16, float32 or float64, got torch.int32"),
        ({"key": KEY.double()}, "key: expected dtype torch.float32 as query has, got torch.float64"),
        ({"key": KEY[:1]}, "key: expected batch size 2 as query has, got 1"),
        ({"query": QUERY[:, :3]}, "key: expected a number of heads that divides query's 3, got 2"),
        ({"key": KEY[..., :4]}, "key: expected d = 5 channels as query has, got 4"),
        ({"value": VALUE[:, :, :8]}, "value: expected 2 heads and 9 tokens as key has, got 2 and 8"),
        ({"value": VALUE[..., :0]}, "value: expected at least one head and one channel"),
        ({"index": INDEX.float()}, "index: expected a tensor of int32 or int64, got torch.float32"),
        ({"index": INDEX[:, :, :5]}, r"index: expected shape \(2 or 1, 4 or 2 or 1, 6, k\), .*got \(2, 2, 5, 5\)"),
        ({"index": INDEX + 9}, "index: it holds 17, but key has only 9 positions"),
        ({"index": INDEX + 2**40}, "index: it holds 10995.*, but key has only 9 positions"),
        ({"index": INDEX - 1}, "index: it holds -2; expected positions of key, from 0, or -1 for none"),
        ({"bias": torch.zeros(2, 2, 6, 5)}, r"bias: expected a shape .* = \(2, 4, 6, 5\), got \(2, 2, 6, 5\)"),
        ({"bias": torch.zeros(5).bool()}, "bias: expected a tensor of float16, .*got torch.bool"),
        ({"scale": 0.0}, "scale: expected a number above 0, got 0.0"),
        ({"backend": "cuda"}, "backend: got 'cuda'"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        attend_at(**{"query": QUERY, "key": KEY, "value": VALUE, "index": INDEX, **changed})
