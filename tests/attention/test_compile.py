"""The layers under torch.compile, without a graph break."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from patchattn import PatchAttention, ScramAttention
from tests.cases import normals


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
