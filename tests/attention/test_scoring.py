"""Temperatures that are tensors, and biases: dense definitions, gradients, and every layer that has them."""

from __future__ import annotations

import copy
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from patchattn import (
    MatchField,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    attend,
    fold,
    match,
    patch_attention,
    scram_attention,
    similarity_at,
)
from tests.attention.dense import patches, similarities, weighted
from tests.cases import TOLERANCE, normals

pytestmark = pytest.mark.usefixtures("one_thread")

HEADS, SIZE = 2, (4, 5)
SHARP = {"patch_size": 1, "similarity": "scaled_dot", "num_heads": HEADS}


def images(*size: int, batch: int = 2, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (normals(batch, 4, *(size or SIZE), seed=seed, dtype=dtype) for seed in range(3))
    return query, key, value


def everything(query_size: tuple[int, ...], key_size: tuple[int, ...], batch: int = 2) -> MatchField:
    """The field that holds all keys of every query, in order."""
    index = torch.arange(torch.Size(key_size).numel(), dtype=torch.int32)
    index = index.view(1, 1, -1, *[1] * len(query_size)).expand(batch, HEADS, -1, *query_size).contiguous()
    return MatchField(index, torch.zeros(index.shape), key_size)


def pairs(tensor: Tensor) -> Tensor:
    """What a field holds, `(B, heads, keys, *query)`, as `(B, heads, queries, keys)`."""
    return tensor.flatten(3).transpose(2, 3)


def relative(table: Tensor, size: tuple[int, ...]) -> Tensor:
    """Entries of a table for all pairs of positions, `(heads, queries, keys)`, one by one; -inf beyond its reach."""
    places = list(product(*map(range, size)))
    rows = []
    for query in places:
        row = []
        for key in places:
            at = [k - q + n // 2 for q, k, n in zip(query, key, table.shape[1:], strict=True)]
            inside = all(0 <= a < n for a, n in zip(at, table.shape[1:], strict=True))
            row.append(table[(slice(None), *at)] if inside else torch.full_like(table[:, 0, 0], -torch.inf))
        rows.append(torch.stack(row, -1))
    return torch.stack(rows, 1)


def dense(query: Tensor, key: Tensor, value: Tensor, temperature: Tensor | float, bias: Tensor | float) -> Tensor:
    """softmax(Q K^T / sqrt(d) / tau + b) V; temperature `(B, heads, queries, 1)` or less, bias to be broadcast."""
    q, k = (patches(x, (1,) * (x.dim() - 2), "zeros", HEADS) for x in (query, key))
    scores = similarities(q, k, "scaled_dot") / temperature + bias
    return weighted((scores - scores.amax(-1, keepdim=True)).exp(), value, tuple(query.shape[2:]))


TEMPERATURES = {
    "one": (lambda: torch.tensor(0.7, dtype=torch.float64), lambda t: t),
    "heads": (lambda: torch.tensor([0.5, 2.0], dtype=torch.float64), lambda t: t.view(1, HEADS, 1, 1)),
    "queries": (lambda: normals(*SIZE, seed=5).exp().unsqueeze(0), lambda t: t.reshape(1, 1, -1, 1)),
    "all": (lambda: normals(2, HEADS, *SIZE, seed=5).exp(), lambda t: t.reshape(2, HEADS, -1, 1)),
}


@pytest.mark.parametrize("name", TEMPERATURES)
def test_temperature_is_that_of_the_dense_definition(backend: str, name: str) -> None:
    make, spread = TEMPERATURES[name]
    temperature, field = make(), everything(SIZE, SIZE)
    expected = dense(*images(), spread(temperature), 0.0)
    found = patch_attention(*images(), field=field, temperature=temperature, backend=backend, **SHARP)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])
    assert torch.equal(
        found, scram_attention(*images(), field=field, temperature=temperature, backend=backend, num_heads=HEADS)
    )


@pytest.mark.parametrize("aggregate", [False, True])
def test_a_tensor_with_one_number_is_the_number(backend: str, aggregate: bool) -> None:
    options: dict[str, Any] = {"k": 3, "patch_size": 3, "aggregate": aggregate, "backend": backend, "num_heads": 2}
    expected = patch_attention(*images(), temperature=0.4, **options)
    found = patch_attention(*images(), temperature=torch.tensor(0.4, dtype=torch.float64), **options)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])


def test_votes_keep_the_temperature_and_the_bias_of_their_neighbor(backend: str) -> None:
    query, key, value = images()
    temperature, strength = normals(2, HEADS, *SIZE, seed=5).exp(), 0.3
    options: dict[str, Any] = {"patch_size": 3, "num_heads": HEADS, "backend": backend}
    field = match(query, key, k=3, **options)
    scores = field.similarity / temperature.unsqueeze(2) - strength * field.offsets().square().sum(3).double()
    expected = attend(field, scores.exp(), value, normalize=True, aggregate=True, patch_size=3, backend=backend)
    found = patch_attention(
        query, key, value, field=field, temperature=temperature, aggregate=True, **options,
        bias=lambda field: -strength * field.offsets().square().sum(3).double(),
    )  # fmt: skip
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])


@pytest.mark.parametrize("shared", [False, True])
def test_windows_with_a_table_are_those_of_swin_transformers(backend: str, shared: bool) -> None:
    table = normals(1 if shared else HEADS, 3, 5, seed=4)
    expected = dense(*images(), 1.0, relative(table, SIZE))
    found = patch_attention(*images(), k=15, max_offset=(1, 2), bias=table, backend=backend, **SHARP)
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float64])


def test_the_table_of_a_swin_transformers_checkpoint() -> None:
    side = 3
    saved = normals((2 * side - 1) ** 2, HEADS)  # relative_position_bias_table
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    between = places[:, None] - places[None] + side - 1  # query minus key
    bias = saved[between[..., 0] * (2 * side - 1) + between[..., 1]].permute(2, 0, 1)
    windows = images(side, side, batch=4)
    table = saved.T.reshape(HEADS, 2 * side - 1, 2 * side - 1).flip(1, 2)
    found = patch_attention(*windows, k=side**2, bias=table, **SHARP)
    torch.testing.assert_close(found, dense(*windows, 1.0, bias))


def test_a_table_of_all_offsets_needs_no_limit() -> None:
    table = normals(HEADS, 7, 9, seed=4)
    expected = dense(*images(), 1.0, relative(table, SIZE))
    torch.testing.assert_close(patch_attention(*images(), k=20, bias=table, **SHARP), expected)
    in_field = patch_attention(*images(), field=everything(SIZE, SIZE), bias=table, **SHARP)
    torch.testing.assert_close(in_field, expected)


@settings(max_examples=8)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.integers(0, 2))
def test_a_table_is_read_at_the_offset(size: list[int], radius: int) -> None:
    query = torch.zeros(1, 2, *size, dtype=torch.float64)
    table = normals(HEADS, *(2 * radius + 1 for _ in size), seed=4)
    seen = []

    def read(field: MatchField) -> Tensor:
        at = [offset + radius for offset in field.offsets().unbind(3)]
        seen.append(table[(torch.arange(HEADS).view(1, -1, *[1] * (1 + len(size))), *at)])
        return seen[0]

    options: dict[str, Any] = {"patch_size": 1, "num_heads": HEADS, "k": 4, "max_offset": radius}
    value = normals(1, 2, *size)
    by_function = patch_attention(query, query, value, bias=read, **options)
    torch.testing.assert_close(patch_attention(query, query, value, bias=table, **options), by_function)


def test_candidates_are_ranked_by_their_scores(backend: str) -> None:
    query, key, value = images()
    table = 2 * normals(HEADS, 7, 9, seed=4)
    q, k = (patches(x, (1, 1), "zeros", HEADS) for x in (query, key))
    scores = similarities(q, k, "scaled_dot") + relative(table, SIZE)
    best = scores.topk(3)
    weights = torch.zeros_like(scores).scatter(3, best.indices, best.values.softmax(3))
    output, field = patch_attention(
        query, key, value, k=3, candidates=20, bias=table, return_field=True, backend=backend, **SHARP
    )
    torch.testing.assert_close(output, weighted(weights, value, SIZE), **TOLERANCE[torch.float64])
    assert torch.equal(pairs(field.index).long(), best.indices)
    products = similarities(q, k, "scaled_dot").gather(3, best.indices)
    torch.testing.assert_close(pairs(field.similarity), products)  # similarities, not scores


def test_minus_infinity_excludes(backend: str) -> None:
    query, key, value = images()
    options: dict[str, Any] = {"k": 20, "backend": backend, **SHARP}

    def others(field: MatchField) -> Tensor:
        return torch.where((field.offsets() == 0).all(3), -torch.inf, 0.0)

    expected = dense(query, key, value, 1.0, torch.zeros(20, 20).fill_diagonal_(-torch.inf))
    torch.testing.assert_close(patch_attention(query, key, value, bias=others, **options), expected)
    nothing = patch_attention(query, key, value, bias=lambda field: field.similarity * 0 - torch.inf, **options)
    assert not nothing.any()
    _, field = patch_attention(query, key, value, bias=others, candidates=20, return_field=True, **options)
    assert (field.index[:, :, -1] == -1).all()
    assert not (field.offsets()[:, :, :-1] == 0).all(3).any()


def test_queries_without_a_match_and_empty_batches() -> None:
    query, key, value = images()
    alone = torch.ones(1, *SIZE, dtype=torch.bool)
    alone[0, 1, 2] = False
    temperature = torch.full((HEADS,), 0.5, dtype=torch.float64, requires_grad=True)
    table = torch.zeros(1, 7, 9, dtype=torch.float64, requires_grad=True)
    learned: dict[str, Any] = {"temperature": temperature, "bias": table, "k": 3, **SHARP}
    output = patch_attention(query, key, value, query_mask=alone, **learned)
    assert not output[:, :, 1, 2].any()
    output.square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (temperature, table))
    assert patch_attention(query[:0], key[:0], value[:0], **learned).shape == (0, 4, *SIZE)


@pytest.mark.parametrize("aggregate", [False, True])
def test_gradients(backend: str, aggregate: bool) -> None:
    query, key, value = (x[..., :2, :3].requires_grad_() for x in images(batch=1))
    temperature = normals(1, HEADS, 2, 3, seed=5).exp().requires_grad_()
    table = normals(HEADS, 3, 5, seed=4).requires_grad_()
    options: dict[str, Any] = {"similarity": "dot", "num_heads": HEADS, "patch_size": (1, 3) if aggregate else 1}
    field = match(query, key, k=2, backend=backend, **options)

    def function(q: Tensor, k: Tensor, v: Tensor, t: Tensor, b: Tensor) -> Tensor:
        return patch_attention(
            q, k, v, field=field, temperature=t, bias=b, aggregate=aggregate, backend=backend, **options
        )

    inputs = (query, key, value, temperature, table)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=backend != "cpu")
    if backend == "cpu":
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)
        tangents = tuple(normals(*x.shape, seed=9) for x in inputs)
        along = torch.func.jvp(function, inputs, tangents)[1]
        step = 1e-6
        ahead, behind = (
            function(*(x.detach() + sign * step * t for x, t in zip(inputs, tangents, strict=True))) for sign in (1, -1)
        )
        torch.testing.assert_close(along, (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("estimator", [None, "snis"])
def test_gradients_of_scram(estimator: str | None) -> None:
    query, key, value = (x[..., :2, :3].requires_grad_() for x in images(batch=1))
    temperature, table = torch.tensor([0.5, 2.0]).double().requires_grad_(), normals(1, 3, 5).requires_grad_()

    def function(*inputs: Tensor) -> Tensor:
        q, k, v, t, b = inputs
        return scram_attention(
            q, k, v, k=2, num_heads=HEADS, temperature=t, bias=b, estimator=estimator, samples=8
        )  # fmt: skip

    assert torch.autograd.gradcheck(function, (query, key, value, temperature, table))


def test_scram_with_all_keys_is_the_dense_definition() -> None:
    query, key, value = images()
    temperature, table = torch.tensor([0.5, 2.0]).double(), normals(HEADS, 7, 9)
    expected = dense(query, key, value, temperature.view(-1, 1, 1), relative(table, SIZE))
    options: dict[str, Any] = {"num_heads": HEADS, "temperature": temperature, "bias": table}
    found = scram_attention(query, key, value, k=20, **options)
    torch.testing.assert_close(found, expected)
    estimate = scram_attention(query, key, value, k=4, estimator="snis", samples=4096, **options)
    assert (estimate - expected).norm() < 0.1 * expected.norm()


def test_one_match_alone_has_weight_one_and_no_gradient_for_its_temperature() -> None:
    temperature = torch.ones(HEADS, requires_grad=True)
    query, key, value = images(dtype=torch.float32)
    patch_attention(query, key, value, k=1, temperature=temperature, **SHARP).sum().backward()
    assert torch.equal(temperature.grad, torch.zeros(HEADS))


class Near(nn.Module):
    """A bias that is learned: minus the squared offset, times a number."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(0.1))

    def forward(self, field: MatchField) -> Tensor:
        return -self.strength * field.offsets().square().sum(3)


def learning(kind: type[nn.Module], bias: Any) -> nn.Module:
    return kind(k=4, patch_size=3, num_heads=HEADS, temperature=nn.Parameter(torch.tensor([0.5, 2.0])), bias=bias)


@pytest.mark.parametrize("kind", [PatchAttention, ScramAttention])
def test_layers_learn_what_is_a_parameter(kind: type[nn.Module]) -> None:
    inputs = images(dtype=torch.float32)
    layer = learning(kind, nn.Parameter(torch.zeros(HEADS, 7, 9)))
    assert [name for name, _ in layer.named_parameters()] == ["temperature", "bias"]
    layer(*inputs).square().sum().backward()
    assert layer.temperature.grad.abs().min() > 0
    assert layer.bias.grad.abs().max() > 0
    assert "temperature=tensor of shape (2,)" in repr(layer)

    copied = copy.deepcopy(layer)
    copied.load_state_dict({name: number + 0.5 for name, number in layer.state_dict().items()})
    assert torch.equal(copied(*inputs), functional_call(layer, dict(copied.named_parameters()), inputs))
    assert not torch.equal(copied(*inputs), layer(*inputs))
    assert layer.double().temperature.dtype == torch.float64

    layer.temperature, layer.bias = 0.5, torch.zeros(1, 7, 9)
    assert not list(layer.parameters())
    assert [name for name, _ in layer.named_buffers()] == ["bias"]  # moves with the layer
    assert layer.settings["temperature"] == 0.5


def test_modules_as_bias_are_learned() -> None:
    layer = learning(PatchAttention, Near())
    assert [name for name, _ in layer.named_parameters()] == ["temperature", "bias.strength"]
    layer(*images(dtype=torch.float32)).square().sum().backward()
    assert layer.bias.strength.grad != 0
    layer.bias = None
    assert not list(layer.modules())[1:]


def test_a_block_for_transformers_has_a_bias_in_its_layer() -> None:
    table = nn.Parameter(torch.zeros(HEADS, 7, 9))
    block = MultiheadPatchAttention2d(4, HEADS, k=4, attention_bias=table, temperature=nn.Parameter(torch.ones(HEADS)))
    names = {name for name, _ in block.named_parameters()}
    assert {"attention.bias", "attention.temperature", "query_projection.bias"} <= names
    block(images(dtype=torch.float32)[0]).square().sum().backward()
    assert table.grad is not None


@pytest.mark.parametrize("bias", ["table", "module"])
def test_compiled_equals_eager(bias: str) -> None:
    layer = learning(PatchAttention, nn.Parameter(normals(HEADS, 7, 9).float()) if bias == "table" else Near())
    results = []
    for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        layer.zero_grad()
        inputs = [x.requires_grad_() for x in images(dtype=torch.float32)]
        call(*inputs).square().sum().backward()
        results.append([x.grad for x in (*inputs, *layer.parameters())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager)


def test_other_memory_layouts_and_precisions() -> None:
    query, key, value = images(dtype=torch.float32)
    table = normals(7, 9, HEADS).float().permute(2, 0, 1)
    temperature = normals(*SIZE, HEADS).exp().float().permute(2, 0, 1)
    options: dict[str, Any] = {"k": 5, **SHARP}
    expected = patch_attention(
        query, key, value, bias=table.contiguous(), temperature=temperature.contiguous(), **options
    )
    assert torch.equal(patch_attention(query, key, value, bias=table, temperature=temperature, **options), expected)
    half = patch_attention(
        query.half(), key.half(), value.half(), bias=table.half(), temperature=temperature.bfloat16(), **options
    )
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": torch.ones(3)}, r"temperature: expected \(2,\), which is one for each head, or .*got \(3,\)"),
        ({"temperature": torch.ones(2, 2)}, r"temperature: .*\(2, 2, 4, 5\), got \(2, 2\)"),
        ({"temperature": torch.ones(2, dtype=torch.int64)}, r"temperature: .*got torch.int64"),
        ({"temperature": torch.tensor([1.0, 0.0])}, "temperature: expected numbers above 0"),
        ({"temperature": torch.tensor([1.0, torch.nan])}, "temperature: expected numbers above 0"),
        (
            {"bias": torch.zeros(2, 3, 4)},
            r"bias: expected a table .*\(2 or 1, 2 r1 \+ 1, 2 r2 \+ 1\)",
        ),
        ({"bias": torch.zeros(2, 3)}, "bias: expected a table of relative offsets"),
        ({"bias": torch.zeros(2, 3, 3, dtype=torch.int32)}, "bias: expected a tensor of .*got torch.int32"),
        ({"bias": torch.zeros(2, 3, 3)}, r"knows offsets up to \(1, 1\), but .* \(3, 4\) away; .*max_offset=\(1, 1\)"),
        ({"bias": torch.zeros(2, 3, 3), "max_offset": 2}, r"matches may be \(2, 2\) away"),
        ({"bias": 3}, "bias: expected a tensor .* or a function of a MatchField, got int"),
        ({"bias": lambda field: 0.5}, "bias: expected the function to return a tensor of .*got float"),
        ({"bias": lambda field: torch.zeros(4)}, r"bias: expected the function to return a shape .*got \(4,\)"),
        ({"candidates": 5}, "candidates: got 5, of which a bias chooses"),
        ({"candidates": 2, "bias": torch.zeros(2, 7, 9)}, "candidates: expected an integer of at least 3"),
        ({"bias": torch.zeros(2, 3, 3), "field": everything(SIZE, SIZE)}, "but field holds larger ones"),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        patch_attention(*images(), k=3, **SHARP, **arguments)


def test_chains_walk_by_one_temperature() -> None:
    with pytest.raises(ValueError, match="temperature, bias: the chains of estimator='mh'"):
        scram_attention(*images(), estimator="mh", num_heads=HEADS, temperature=torch.ones(HEADS))


def test_transformed_matches_take_a_number_and_no_bias() -> None:
    image = torch.rand(1, 2, 8, 8)
    for options in ({"temperature": torch.ones(1)}, {"bias": torch.zeros(1, 17, 17)}):
        with pytest.raises(ValueError, match="temperature, bias: got a tensor or a bias, and matches that are rotated"):
            patch_attention(image, image, image, patch_size=3, mirror=True, max_offset=None, **options)
    field = match(image, image, patch_size=3, mirror=True)
    with pytest.raises(ValueError, match="field: its matches are rotated, scaled or mirrored"):
        similarity_at(image, image, field, patch_size=3)
    with pytest.raises(ValueError, match="fields: got matches that are rotated, scaled or mirrored"):
        MatchField.stack([field, field])
    with pytest.raises(ValueError, match="field: its matches are rotated, scaled or mirrored"):
        fold(field, image, 3)
