"""Multi-head attention between images: its projections, and any of the layers inside."""

from __future__ import annotations

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from patchattn import (
    MatchField,
    MultiheadPatchAttention2d,
    PatchAttention,
    ScramAttention,
    ScramDiagnostics,
    scram_attention,
)
from patchattn.baselines import FullAttention
from tests.cases import TOLERANCE, mask, normals

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

SIZE, OTHER = (5, 6), (4, 7)
FULL: dict[str, Any] = {"attention": FullAttention, "patch_size": 1, "similarity": "scaled_dot"}
LAYERS: dict[str, dict[str, Any]] = {
    "scram": {"k": 3, "expand": 1},
    "mode": {"k": 2, "selection": "mode", "separation": 2},
    "snis": {"k": 2, "estimator": "snis", "samples": 8},
    "mh": {"k": 2, "estimator": "mh", "samples": 8},
    "full": FULL,
    "patch": {"attention": PatchAttention, "k": 3, "patch_size": 3, "aggregate": True},
}


def image(*shape: int, seed: int = 0) -> Tensor:
    return normals(*shape, seed=seed, dtype=torch.float32)


def layer_of(embed_dim: int = 8, num_heads: int = 2, **settings: Any) -> MultiheadPatchAttention2d:
    """With weights of its own, the biases too."""
    layer = MultiheadPatchAttention2d(embed_dim, num_heads, **settings)
    for seed, weight in enumerate(layer.parameters()):
        weight.data = 0.5 * image(*weight.shape, seed=seed)
    return layer


def as_sequence(picture: Tensor) -> Tensor:
    return picture.flatten(2).transpose(1, 2)


def torch_layer(layer: MultiheadPatchAttention2d, kdim: int | None = None, vdim: int | None = None) -> Any:
    """PyTorch's layer for sequences with the same weights."""
    sequence = nn.MultiheadAttention(layer.embed_dim, layer.num_heads, kdim=kdim, vdim=vdim, batch_first=True)
    projections = [layer.query_projection, layer.key_projection, layer.value_projection]
    weights = [projection.weight.data[:, :, 0, 0] for projection in projections]
    if kdim is None and vdim is None:
        sequence.in_proj_weight.data = torch.cat(weights)
    else:
        for name, weight in zip("qkv", weights, strict=True):
            getattr(sequence, f"{name}_proj_weight").data = weight
    sequence.in_proj_bias.data = torch.cat([projection.bias.data for projection in projections])
    sequence.out_proj.weight.data = layer.output_projection.weight.data[:, :, 0, 0]
    sequence.out_proj.bias.data = layer.output_projection.bias.data
    return sequence


@pytest.mark.parametrize("name", LAYERS)
def test_shape(name: str) -> None:
    layer = layer_of(**LAYERS[name])
    query = image(2, 8, *SIZE)
    assert layer(query).shape == query.shape
    assert layer(query, image(2, 8, *OTHER, seed=1)).shape == query.shape
    # The key may be one for the whole batch.
    assert layer(query, image(1, 8, *OTHER, seed=1), image(1, 8, *OTHER, seed=2)).shape == query.shape


def test_projections_around_the_function() -> None:
    layer = layer_of(k=3, expand=1)
    query, key, value = image(2, 8, *SIZE), image(2, 8, *OTHER, seed=1), image(2, 8, *OTHER, seed=2)

    def project(by: nn.Conv2d, picture: Tensor) -> Tensor:
        return torch.einsum("oi,bihw->bohw", by.weight[:, :, 0, 0], picture) + by.bias[:, None, None]

    attended = scram_attention(
        project(layer.query_projection, query), project(layer.key_projection, key),
        project(layer.value_projection, value), k=3, expand=1, num_heads=2,
    )  # fmt: skip
    expected = project(layer.output_projection, attended)
    torch.testing.assert_close(layer(query, key, value), expected, **TOLERANCE[torch.float32])


def test_what_is_left_out_is_the_argument_before() -> None:
    layer = layer_of(k=3)
    query, key = image(2, 8, *SIZE), image(2, 8, *OTHER, seed=1)
    assert torch.equal(layer(query), layer(query, query, query))
    assert torch.equal(layer(query, key), layer(query, key, key))
    assert torch.equal(layer(query, value=query.flip(3)), layer(query, query, query.flip(3)))


@pytest.mark.parametrize("kind", ["scram", "full"])
def test_all_keys_are_the_layer_of_pytorch(kind: str) -> None:
    layer = layer_of(**({"k": 30} if kind == "scram" else FULL))
    sequence = torch_layer(layer)
    query = image(2, 8, *SIZE)
    found = as_sequence(layer(query))
    expected, _ = sequence(*[as_sequence(query)] * 3)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_all_keys_are_the_layer_of_pytorch_with_other_channels_and_a_mask() -> None:
    layer = layer_of(8, 4, kdim=5, vdim=3, k=28)
    query, key, value = image(2, 8, *SIZE), image(2, 5, *OTHER, seed=1), image(2, 3, *OTHER, seed=2)
    allowed = mask(2, *OTHER, share=0.6)
    found = as_sequence(layer(query, key, value, key_mask=allowed))
    expected, _ = torch_layer(layer, 5, 3)(
        *(as_sequence(x) for x in (query, key, value)), key_padding_mask=~allowed.flatten(1)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_causality_is_that_of_pytorch() -> None:
    layer = layer_of(k=30, is_causal=True)
    tokens = as_sequence(query := image(2, 8, *SIZE))
    later = torch.ones(30, 30, dtype=torch.bool).triu(1)
    expected, _ = torch_layer(layer)(tokens, tokens, tokens, attn_mask=later)
    torch.testing.assert_close(as_sequence(layer(query)), expected, rtol=1e-5, atol=1e-5)


def test_weights_are_drawn_as_pytorch_does() -> None:
    layer = MultiheadPatchAttention2d(64, 4, kdim=32)
    for projection, channels in (
        (layer.query_projection, 64),
        (layer.key_projection, 32),
        (layer.value_projection, 64),
        (layer.output_projection, 64),
    ):
        bound = (6 / (64 + channels)) ** 0.5
        assert projection.weight.abs().max() <= bound
        assert float(projection.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert (projection.bias == 0).all()


def test_without_bias() -> None:
    layer = MultiheadPatchAttention2d(8, 2, bias=False)
    assert all(name.endswith("weight") for name, _ in layer.named_parameters())
    assert (layer(torch.zeros(1, 8, *SIZE)) == 0).all()


def test_layers_take_each_others_weights() -> None:
    query = image(2, 8, *SIZE)
    trained = layer_of(k=30)
    for name, settings in LAYERS.items():
        other = layer_of(**settings)
        other.reset_parameters()
        assert str(other.load_state_dict(trained.state_dict())) == "<All keys matched successfully>"
        assert other(query).isfinite().all(), name
    full = layer_of(**FULL)
    full.load_state_dict(trained.state_dict())
    torch.testing.assert_close(full(query), trained(query), **TOLERANCE[torch.float32])
    best = MultiheadPatchAttention2d(8, 2, attention=PatchAttention, k=30, patch_size=1, similarity="scaled_dot")
    best.load_state_dict(trained.state_dict())
    torch.testing.assert_close(best(query), trained(query), **TOLERANCE[torch.float32])


@pytest.mark.parametrize(("kdim", "vdim"), [(5, 3), (None, 3), (5, None)])
@pytest.mark.parametrize("name", LAYERS)
def test_key_and_value_of_other_channels(name: str, kdim: int | None, vdim: int | None) -> None:
    layer = layer_of(kdim=kdim, vdim=vdim, **LAYERS[name])
    key, value = image(2, kdim or 8, *OTHER, seed=1), image(2, vdim or 8, *OTHER, seed=2)
    query = image(2, 8, *SIZE)
    assert layer(query, key, value).shape == query.shape


def test_what_else_the_layer_returns_is_passed_on() -> None:
    layer = layer_of(k=3, expand=1)
    query, key = image(2, 8, *SIZE), image(2, 8, *OTHER, seed=1)
    output, field, diagnostics = layer(query, key, return_field=True, return_diagnostics=True)
    assert isinstance(field, MatchField)
    assert isinstance(diagnostics, ScramDiagnostics)
    assert field.index.shape == (2, 2, 3, *SIZE)
    assert torch.equal(layer(query, key), output)
    assert torch.equal(layer(query, key, field=field), output)
    other, found = layer_of(**LAYERS["patch"])(query, key, return_field=True)
    assert other.shape == query.shape
    assert isinstance(found, MatchField)


def test_masks_are_passed_on() -> None:
    layer = layer_of(k=3)
    query, nothing = image(2, 8, *SIZE), torch.zeros(1, *SIZE, dtype=torch.bool)
    bias = layer.output_projection.bias[:, None, None].expand_as(query)
    for which in ("query_mask", "key_mask"):
        torch.testing.assert_close(layer(query, **{which: nothing}), bias)


def test_copies_are_the_same_layer() -> None:
    layer = layer_of(k=3, expand=1)
    query = image(2, 8, *SIZE)
    again = layer_of(k=3, expand=1)
    again.reset_parameters()
    again.load_state_dict(layer.state_dict())
    for other in (again, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(query), layer(query))
    assert "embed_dim=8, num_heads=2" in repr(layer)
    assert len(layer.state_dict()) == 8


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_reach_all_parameters(name: str) -> None:
    layer = layer_of(kdim=5, vdim=3, **LAYERS[name])
    inputs = [image(2, c, *SIZE, seed=c).requires_grad_() for c in (8, 5, 3)]
    layer(*inputs).square().sum().backward()
    for label, weight in [*layer.named_parameters(), *zip(("query", "key", "value"), inputs, strict=True)]:
        assert weight.grad is not None, label
        assert weight.grad.isfinite().all(), label
        if label != "key_projection.bias":  # added to all similarities of a query alike, in most layers
            assert weight.grad.abs().max() > 1e-6, label


def test_gradients_of_all_keys_are_those_of_pytorch() -> None:
    layer = layer_of(k=30)
    sequence = torch_layer(layer)
    query = image(2, 8, *SIZE)
    weight = image(2, 30, 8, seed=3)
    (as_sequence(layer(query)) * weight).sum().backward()
    (sequence(*[as_sequence(query)] * 3)[0] * weight).sum().backward()
    projections = (layer.query_projection, layer.key_projection, layer.value_projection)
    found = torch.cat([projection.weight.grad[:, :, 0, 0] for projection in projections])
    torch.testing.assert_close(found, sequence.in_proj_weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_autocast(name: str, backend: str) -> None:
    layer = layer_of(**LAYERS[name], **({} if name == "full" else {"backend": backend}))
    query = image(2, 8, *SIZE).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(query)
    assert output.dtype == torch.bfloat16
    assert output.isfinite().all()
    output.float().square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in layer.parameters())


@pytest.mark.parametrize("name", ["scram", "snis"])
def test_compiled_equals_eager(name: str) -> None:
    layer = layer_of(**LAYERS[name])
    compiled = torch.compile(layer, fullgraph=True)
    results = []
    for forward in (layer, compiled):
        layer.zero_grad()
        query = image(2, 8, *SIZE).requires_grad_()
        output = forward(query)
        output.square().sum().backward()
        results.append([output, query.grad, *(weight.grad.clone() for weight in layer.parameters())])
    for eager, fused in zip(*results, strict=True):
        torch.testing.assert_close(eager, fused, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embed_dim": 0}, "embed_dim: expected an integer of at least 1 (and below 2^63), got 0"),
        ({"embed_dim": 8.0}, "embed_dim: expected an integer of at least 1 (and below 2^63), got 8.0"),
        ({"num_heads": 0}, "num_heads: expected an integer of at least 1 (and below 2^63), got 0"),
        ({"num_heads": 3}, "embed_dim: expected a multiple of num_heads = 3, got 8"),
        ({"kdim": 0}, "kdim: expected an integer of at least 1 (and below 2^63), got 0"),
        ({"vdim": -1}, "vdim: expected an integer of at least 1 (and below 2^63), got -1"),
    ],
)
def test_wrong_sizes_are_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MultiheadPatchAttention2d(**({"embed_dim": 8, "num_heads": 2} | arguments))


def test_wrong_images_are_said() -> None:
    layer = layer_of(k=3)
    query = image(2, 8, *SIZE)
    for arguments, message in (
        ((query[0],), "query: expected an image (B, C, H, W), got (8, 5, 6)"),
        ((query, query[0]), "key: expected an image (B, C, H, W), got (8, 5, 6)"),
        ((query, query, 3), "value: expected an image (B, C, H, W), got int"),
        ((query, image(2, 8, 4)), "key: expected an image (B, C, H, W), got (2, 8, 4)"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            layer(*arguments)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="reach"):
        MultiheadPatchAttention2d(8, 2, reach=3)
    assert isinstance(MultiheadPatchAttention2d(8, 2).attention, ScramAttention)
