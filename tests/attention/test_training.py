"""Weights that are kept, and training in several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchattn import MultiheadPatchAttention2d, PatchAttention, ScramAttention
from patchattn.baselines import FullAttention
from patchattn.kernels import default_backend

WEIGHTS = {
    "query_projection.weight": (8, 8, 1, 1),
    "query_projection.bias": (8,),
    "key_projection.weight": (8, 5, 1, 1),
    "key_projection.bias": (8,),
    "value_projection.weight": (8, 3, 1, 1),
    "value_projection.bias": (8,),
    "output_projection.weight": (8, 8, 1, 1),
    "output_projection.bias": (8,),
}
"""What files that users have saved hold: the names and shapes of version 0.1."""


@pytest.mark.parametrize("attention", [ScramAttention, PatchAttention, FullAttention])
@pytest.mark.parametrize("bias", [True, False])
def test_a_state_of_today_loads_tomorrow(attention: type[nn.Module], bias: bool) -> None:
    layer = MultiheadPatchAttention2d(8, 2, attention=attention, kdim=5, vdim=3, bias=bias)
    expected = {name: shape for name, shape in WEIGHTS.items() if bias or name.endswith("weight")}
    assert {name: tuple(weight.shape) for name, weight in layer.state_dict().items()} == expected
    saved = {name: torch.full(shape, float(n)) for n, (name, shape) in enumerate(expected.items())}
    layer.load_state_dict(saved, strict=True)
    assert [float(weight.detach().mean()) for weight in layer.parameters()] == list(range(len(expected)))


@pytest.mark.parametrize("layer", [PatchAttention(), ScramAttention(), FullAttention()])
def test_layers_without_weights_load_nothing(layer: nn.Module) -> None:
    assert not layer.state_dict()
    layer.load_state_dict({}, strict=True)


PROCESS = """
import sys
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from patchattn import PatchAttention

rank, store, result, backend = int(sys.argv[1]), *sys.argv[2:]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)
        self.attention = PatchAttention(k=3, patch_size=3, aggregate=True, num_heads=2, backend=backend)

    def forward(self, image):
        features = self.first(image)
        return self.last(self.attention(features, features, features))


def gradients(network, images):
    network(images).square().mean().backward()
    return [weight.grad for weight in network.parameters()]


torch.manual_seed(0)
network, images = Network(), torch.rand(4, 3, 12, 13)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
found = gradients(DistributedDataParallel(network), images[2 * rank : 2 * rank + 2])
torch.distributed.destroy_process_group()
found = [gradient.clone() for gradient in found]
network.zero_grad()
torch.save((found, gradients(network, images)), result)
"""


def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    results = [tmp_path / f"gradients{rank}" for rank in range(2)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store"), str(result), default_backend("cpu")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, result in enumerate(results)
    ]
    for process in running:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    halves: list[Any] = []
    for result in results:
        found, expected = torch.load(result)
        torch.testing.assert_close(found, expected)
        assert all((gradient != 0).any() for gradient in found)
        halves.append(found)
    assert all(torch.equal(one, other) for one, other in zip(*halves, strict=True))
