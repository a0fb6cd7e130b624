"""benchmarks/features.py: that it knows every layer, and that its checks can pass and fail."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import patchattn
from tests.benchmark_modules import benchmark_modules


@pytest.fixture(scope="module")
def features() -> Iterator[ModuleType]:
    """The script, which finds others beside it."""
    with benchmark_modules("features") as modules:
        yield modules["features"]


def test_every_public_layer_is_tried(features: ModuleType) -> None:
    public = [getattr(module, name) for module in (patchattn, patchattn.baselines) for name in module.__all__]
    layers = {one.__name__ for one in public if isinstance(one, type) and issubclass(one, nn.Module)}
    assert {name.partition(",")[0] for name in features.LAYERS} == layers


def test_one_that_works(features: ModuleType) -> None:
    assert features.cell("LinearAttention", "copy and pickle") == "yes"


def test_wrong_values_and_refusals(features: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(nn.Module):
        """Computes another thing at every call."""

        calls = 0

        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            Forgetful.calls += 1
            return value * Forgetful.calls

    class Refusing(nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return patchattn.patch_attention(query, key, value, k=0)

    monkeypatch.setitem(features.LAYERS, "forgetful", Forgetful)
    monkeypatch.setitem(features.LAYERS, "refusing", Refusing)
    for feature in ("trace", "func.grad", "jacrev", "vmap", "vmap of grad", "autocast", "inference mode", "checkpoint"):
        with torch.random.fork_rng():
            assert features.cell("forgetful", feature).startswith("no: "), feature
    assert features.cell("refusing", "inference mode").startswith("refused: k: ")
