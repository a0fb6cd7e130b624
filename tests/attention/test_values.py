"""`gather` and `attend`: values at the matches of a field, against sums written out."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn import MatchField, attend, gather, match, patch_attention
from tests.cases import PAIRS, TOLERANCE, Pair, fewer, gradcheck, normals, random_index

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {
    "1d": Pair((5,), (4,), (3,), heads=2),
    "2d": Pair((3, 4), (4, 3), (3, 1), shared=True),
    "3d": Pair((2, 2, 3), (2, 3, 2), (1, 3, 3), batch=1, heads=2),
}


def inputs(pair: Pair, k: int = 3, dtype: torch.dtype = torch.float64, ratio: int = 1) -> tuple[Any, Tensor, Tensor]:
    """A field, weights of any sign (NaN where there is no match), and a value."""
    index = random_index(pair, k)
    weights = normals(*index.shape, seed=1, dtype=dtype).masked_fill(index < 0, torch.nan)
    size = [ratio * n for n in pair.key]
    value = normals(1 if pair.shared else pair.batch, 4, *size, seed=2, dtype=dtype)
    return MatchField(index, torch.zeros(index.shape), pair.key), weights, value


def definition(field: MatchField, weights: Tensor, value: Tensor, window: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The sum over all votes, one by one, and the sum of their weights."""
    batch, heads, k, *size = field.index.shape
    value = value.expand(batch, *value.shape[1:]).unflatten(1, (heads, -1))
    found = torch.zeros(batch, heads, value.shape[2], *size, dtype=value.dtype)
    total = torch.zeros(batch, heads, *size, dtype=value.dtype)
    coordinates = field.coordinates()
    for b, h, m in product(range(batch), range(heads), range(k)):
        for at in product(*map(range, size)):
            if field.index[(b, h, m, *at)] < 0:
                continue
            for offset in product(*(range(-(n // 2), n // 2 + 1) for n in window)):
                query = tuple(a - o for a, o in zip(at, offset, strict=True))
                key = tuple(int(c) - o for c, o in zip(coordinates[(b, h, m, slice(None), *at)], offset, strict=True))
                inside = all(0 <= q < n for q, n in zip(query, size, strict=True))
                if inside and all(0 <= c < n for c, n in zip(key, field.key_shape, strict=True)):
                    found[(b, h, slice(None), *query)] += weights[(b, h, m, *at)] * value[(b, h, slice(None), *key)]
                    total[(b, h, *query)] += weights[(b, h, m, *at)]
    return found, total


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_weighted_sums(backend: str, name: str, aggregate: bool) -> None:
    pair = SMALL[name]
    field, weights, value = inputs(pair)
    expected, total = definition(field, weights, value, pair.patch if aggregate else (1,) * pair.dims)
    options: dict[str, Any] = {"aggregate": aggregate, "patch_size": pair.patch, "backend": backend}
    torch.testing.assert_close(attend(field, weights, value, **options), expected.flatten(1, 2))
    mean = (expected / total.unsqueeze(2)).nan_to_num(0).flatten(1, 2)
    torch.testing.assert_close(attend(field, weights, value, normalize=True, **options), mean)


@pytest.mark.parametrize("aggregate", [False, True])
def test_softmax_weights_are_patch_attention(backend: str, aggregate: bool) -> None:
    query, key, value = normals(3, 2, 4, 5, 6)
    field = match(query, key, k=3, patch_size=3, similarity="dot")
    options: dict[str, Any] = {"patch_size": 3, "aggregate": aggregate, "backend": backend}
    expected = patch_attention(query, key, value, field=field, similarity="dot", **options)
    found = attend(field, field.similarity.exp(), value, normalize=True, **options)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "2d_shared", "3d_sizes"])
def test_gathered_values(backend: str, name: str) -> None:
    pair = PAIRS[name].on(backend)
    field, weights, value = inputs(pair)
    found = gather(field, value, backend=backend)
    rows = value.flatten(2).unflatten(1, (pair.heads, -1)).expand(pair.batch, -1, -1, -1)
    places = field.index.long().clamp(min=0).flatten(2).unsqueeze(2).expand(-1, -1, rows.shape[2], -1)
    expected = rows.gather(3, places).unflatten(3, field.index.shape[2:]).transpose(2, 3)
    exists = (field.index >= 0).unsqueeze(3)
    assert torch.equal(found, torch.where(exists, expected, 0))
    summed = (torch.where(exists, weights.unsqueeze(3), 0) * found).sum(2).flatten(1, 2)
    torch.testing.assert_close(attend(field, weights, value, backend=backend), summed, **TOLERANCE[torch.float64])


def test_values_twice_as_large_bring_blocks(backend: str) -> None:
    pair = Pair((3, 4), (4, 3), (3, 3), heads=2)
    field, weights, value = inputs(pair, ratio=2)
    apart = gather(field, value, backend=backend)
    assert apart.shape == (2, 2, 3, 2, 6, 8)
    for y, x in product(range(2), range(2)):  # each pixel of the blocks is an image of the key's size
        part = value[..., y::2, x::2].contiguous()
        assert torch.equal(apart[..., y::2, x::2], gather(field, part, backend=backend))
        for aggregate in (False, True):
            whole = attend(field, weights, value, aggregate=aggregate, patch_size=3, backend=backend)
            alone = attend(field, weights, part, aggregate=aggregate, patch_size=3, backend=backend)
            torch.testing.assert_close(whole[..., y::2, x::2], alone)


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_gradcheck(backend: str, name: str, aggregate: bool) -> None:
    pair = SMALL[name]
    field, weights, value = inputs(pair, k=2)
    weights, value = weights.nan_to_num(3.0).requires_grad_(), value.requires_grad_()
    for normalize in fewer(backend, (False, True), (True,)):
        options: dict[str, Any] = {"normalize": normalize, "aggregate": aggregate, "patch_size": pair.patch}

        def function(w: Tensor, v: Tensor, options: dict[str, Any] = options) -> Tensor:
            return attend(field, w, v, backend=backend, **options)

        # Of weights of any sign the sum may be near 0.
        assert gradcheck(backend, function, ((weights.square() if normalize else weights), value))
    assert gradcheck(backend, lambda v: gather(field, v, backend=backend), (value,))


def test_gradients_of_gradients() -> None:
    pair = SMALL["2d"]
    field, weights, value = inputs(pair, k=2)
    inputs_ = (weights.nan_to_num(3.0).requires_grad_(), value.requires_grad_())

    def votes(w: Tensor, v: Tensor) -> Tensor:
        return attend(field, w, v, aggregate=True, patch_size=(3, 1))

    assert torch.autograd.gradgradcheck(votes, inputs_)
    exact = torch.func.jvp(votes, inputs_, inputs_)[1]
    torch.testing.assert_close(exact, 2 * votes(*inputs_))  # linear in both


def test_gradients_are_the_same_bits_every_time(backend: str) -> None:
    pair = Pair((4, 5), (2, 2), (3, 3))
    field, weights, value = inputs(pair, dtype=torch.float32)

    def gradients() -> list[Tensor | None]:
        leaves = [weights.nan_to_num(1.0).requires_grad_(), value.clone().requires_grad_()]
        output = attend(field, *leaves, aggregate=True, patch_size=3, backend=backend)
        (output.square().sum() + gather(field, leaves[1], backend=backend).pow(3).sum()).backward()
        return [leaf.grad for leaf in leaves]

    first = gradients()
    assert all(torch.equal(one, other) for one, other in zip(first, gradients(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(backend: str, dtype: torch.dtype) -> None:
    pair = Pair((4, 5), (5, 4), (3, 3))
    field, weights, value = inputs(pair, dtype=dtype)
    for aggregate, normalize in product((False, True), (False, True)):
        options: dict[str, Any] = {"aggregate": aggregate, "normalize": normalize, "patch_size": 3, "backend": backend}
        wide = attend(field, weights.float().abs(), value.float(), **options)
        assert torch.equal(attend(field, weights.abs(), value, **options), wide.to(dtype))
    assert torch.equal(gather(field, value, backend=backend), gather(field, value.float(), backend=backend).to(dtype))


@pytest.mark.parametrize("shape", [(0, 1, 2, 3, 4), (1, 1, 0, 3, 4), (1, 1, 2, 0, 4)])
def test_nothing(backend: str, shape: tuple[int, ...]) -> None:
    index = torch.zeros(shape, dtype=torch.int32)
    field = MatchField(index, torch.zeros(shape), (5, 6))
    value = normals(1, 2, 5, 6).requires_grad_()
    output = attend(field, torch.ones(shape), value, aggregate=True, patch_size=3, backend=backend)
    apart = gather(field, value, backend=backend)
    assert output.shape == (shape[0], 2, *shape[3:])
    assert (output == 0).all()
    assert apart.shape == (*shape[:3], 2, *shape[3:])
    (output.sum() + apart.sum()).backward()
    assert value.grad is not None
    assert (value.grad == 0).all()


@settings(max_examples=20)
@given(st.data())
def test_any_shape(data: st.DataObject) -> None:
    dims = data.draw(st.integers(1, 3))
    size, odd = st.integers(1, 3), st.sampled_from([1, 3, 5])
    query, key, window = (tuple(data.draw(one) for _ in range(dims)) for one in (size, size, odd))
    pair = Pair(query, key, window, data.draw(st.sampled_from([1, 2])), data.draw(size), data.draw(st.booleans()))
    field, weights, value = inputs(pair, data.draw(size))
    expected, _ = definition(field, weights, value, window)
    found = attend(field, weights, value, aggregate=True, patch_size=window)
    torch.testing.assert_close(found, expected.flatten(1, 2), **TOLERANCE[torch.float64])


def test_compiled_without_a_graph_break() -> None:
    field, weights, value = inputs(Pair((4, 5), (5, 4), (3, 3)), dtype=torch.float32)

    def function(w: Tensor, v: Tensor) -> Tensor:
        output = attend(field, w, v, aggregate=True, normalize=True, patch_size=3)
        return output + gather(field, v).mean((1, 2))

    results = []
    for called in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        leaves = [weights.nan_to_num(1.0).abs().requires_grad_(), value.clone().requires_grad_()]
        output = called(*leaves)
        output.square().sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves)])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_weights_are_broadcast() -> None:
    field, _, value = inputs(PAIRS["2d_sizes"])
    weights = torch.arange(1.0, 4.0).view(1, 1, 3, 1, 1)
    assert torch.equal(attend(field, weights, value), attend(field, weights.expand(field.index.shape), value))


FIELD, WEIGHTS, VALUE = inputs(PAIRS["2d"], dtype=torch.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"field": FIELD.index}, "field: expected a MatchField, got Tensor"),
        ({"value": VALUE[0]}, "field: expected an int32 index .* with 1 spatial dimensions as value has"),
        ({"value": VALUE[:, :3]}, "num_heads: got 2, which does not divide the 3 channels of value"),
        ({"value": VALUE[..., 1:]}, r"value: expected the key's spatial size \(9, 13\) or a whole multiple"),
        ({"value": VALUE.repeat(2, 1, 1, 1)}, "value: expected batch size 2 as field has, or 1, got 4"),
        ({"field": MatchField(FIELD.index + 117, FIELD.similarity, (9, 13))}, "field: its index holds 23., but key"),
        ({"weights": WEIGHTS.int()}, "weights: expected a tensor of float16, .*got torch.int32"),
        ({"weights": WEIGHTS[:, :, :2]}, r"weights: expected a shape that can be broadcast .*got \(2, 2, 2, 9, 13\)"),
        ({"patch_size": 4, "aggregate": True}, "patch_size: expected odd numbers"),
        ({"backend": "cuda"}, "backend: got 'cuda'"),
    ],
)
def test_bad_arguments(changed: dict[str, Any], message: str) -> None:
    arguments = {"field": FIELD, "weights": WEIGHTS, "value": VALUE, **changed}
    with pytest.raises(ValueError, match=f"^{message}"):
        attend(**arguments)
    if not {"weights", "patch_size"} & changed.keys():
        with pytest.raises(ValueError, match=f"^{message}"):
            gather(*(arguments[name] for name in ("field", "value")), backend=changed.get("backend"))
