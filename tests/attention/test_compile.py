"""The layers under torch.compile, without a graph break, and torch.export."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from patchattn import MatchField, MultiheadPatchAttention2d, PatchAttention, ScramAttention
from tests.cases import normals


class Network(nn.Module):
    """Features by a convolution, then all the layers, one of them with its own features for keys."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, padding=1)
        self.best = PatchAttention(k=2, patch_size=3, aggregate=True, num_heads=2)
        self.block = MultiheadPatchAttention2d(8, 2, k=2, expand=1)
        self.modes = ScramAttention(k=2, selection="mode", is_causal=True)
        self.samples = ScramAttention(k=2, estimator="snis", samples=4)
        for seed, weight in enumerate(self.parameters()):
            weight.data = 0.3 * normals(*weight.shape, seed=seed, dtype=torch.float32)

    def forward(self, image: Tensor) -> Tensor:
        features = self.block(self.features(image))
        best = self.best(features, features, features)
        result: Tensor = best + self.modes(best, features, features) + self.samples(best, features, best)
        return result


def picture(*size: int) -> Tensor:
    return normals(2, 3, *size, dtype=torch.float32)


SIZES = [(14, 17), (20, 9), (11, 30)]
""""auto" searches all of them exactly; a change of the method would be compiled anew."""


@pytest.mark.parametrize("aggregate", [False, True])
def test_compiled_equals_eager(aggregate: bool) -> None:
    layer = PatchAttention(k=3, patch_size=5, aggregate=aggregate, num_heads=2, method="patchmatch")
    assert_compiled_equals_eager(layer, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"expand": 1, "is_causal": "strict"},
        {"selection": "mode", "weighting": torch.sigmoid, "normalization": "count"},
        {"estimator": "snis", "samples": 8},
        {"estimator": "mh", "samples": 8},
    ],
)
def test_compiled_scram_equals_eager(settings: dict[str, Any]) -> None:
    assert_compiled_equals_eager(ScramAttention(k=2, num_heads=2, **settings))


def assert_compiled_equals_eager(layer: torch.nn.Module, **tolerance: float) -> None:
    compiled = torch.compile(layer, fullgraph=True)
    results = []
    for forward in (layer, compiled):
        inputs = [normals(2, 4, 17, 13, seed=seed, dtype=torch.float32).requires_grad_() for seed in range(3)]
        output = forward(*inputs)
        output.square().sum().backward()
        results.append([output, *(tensor.grad for tensor in inputs)])
    for eager, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, eager, **tolerance)


def test_compiled_inside_a_network() -> None:
    network = torch.nn.Conv2d(3, 8, 3, padding=1)
    layer = PatchAttention(k=2, patch_size=3, method="exact")

    def forward(image: torch.Tensor) -> torch.Tensor:
        features = network(image)
        output, field = layer(features, features, image, return_field=True)
        return output + layer(features, features, image, field=field)

    image = normals(1, 3, 12, 11, dtype=torch.float32)
    compiled = torch.compile(forward, fullgraph=True)
    torch.testing.assert_close(compiled(image), forward(image))
    compiled(image).sum().backward()
    assert network.weight.grad is not None


def test_one_compiled_network_serves_images_of_changing_size() -> None:
    network, counter = Network(), CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, dynamic=True, backend=counter)
    compiled(picture(12, 13))
    compiled(picture(13, 12))
    graphs = counter.frame_count
    for size in SIZES:
        torch.testing.assert_close(compiled(picture(*size)), network(picture(*size)))
    assert counter.frame_count == graphs


@pytest.mark.parametrize("dynamic", [False, True])
def test_an_exported_network_gives_the_same_after_it_was_saved(dynamic: bool) -> None:
    network = Network()
    shapes = {"image": {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}} if dynamic else None
    file = io.BytesIO()
    torch.export.save(torch.export.export(network, (picture(12, 13),), dynamic_shapes=shapes), file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for size in [(12, 13), *(SIZES if dynamic else [])]:
        torch.testing.assert_close(loaded(picture(*size)), network(picture(*size)))


def test_a_field_that_leaves_the_key_is_refused_by_a_compiled_layer() -> None:
    layer, image = PatchAttention(k=2, patch_size=3), picture(6, 7)
    _, field = layer(image, image, image, return_field=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(image, image, image, field=field)
    beyond = MatchField(field.index + 42, field.similarity, field.key_shape)
    with pytest.raises(RuntimeError, match="field: its index holds what is neither -1 nor one of the 42 positions"):
        compiled(image, image, image, field=beyond)
