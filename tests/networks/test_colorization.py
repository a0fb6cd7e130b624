"""The colorization network: its parts, its attention by name, and its weights as a file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from patchattn import PatchAttention
from patchattn.baselines import PerformerAttention
from patchattn.networks.architectures import ColorizationArchitecture
from patchattn.networks.attention_layers import NAMES, named_attention
from patchattn.networks.colorization import ColorizationNetwork
from patchattn.networks.weights import load_colorization_network, network_bytes

SMALL = {"patch_size": 3}


def test_it_is_the_papers_figure() -> None:
    network = ColorizationNetwork(PatchAttention())
    shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters()}
    assert shapes == {
        "query.weight": (16, 1, 3, 3), "query.bias": (16,), "key.weight": (16, 3, 3, 3), "key.bias": (16,),
        "value.weight": (16, 3, 3, 3), "value.bias": (16,), "output.weight": (3, 16, 3, 3), "output.bias": (3,),
    }  # fmt: skip


def test_attention_has_but_to_bring_the_colors() -> None:
    network = ColorizationNetwork(PatchAttention(**SMALL))
    torch.nn.init.zeros_(network.output.weight)
    torch.nn.init.zeros_(network.output.bias)
    gray = torch.rand(2, 1, 12, 10)
    assert torch.equal(network(gray, torch.rand(2, 3, 9, 14)), gray.expand(-1, 3, -1, -1))


def test_one_match_brings_the_color_of_its_pixel() -> None:
    """With projections that hand on what they get, the network is attention from gray to gray."""
    network = ColorizationNetwork(PatchAttention(k=1, patch_size=1, method="exact"), channels=3)
    center = torch.zeros(3, 3, 3, 3)
    center[range(3), range(3), 1, 1] = 1
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.query.weight.copy_(center.sum(1, keepdim=True))
        for layer in (network.key, network.value, network.output):
            layer.weight.copy_(center)
    gray = torch.rand(1, 1, 8, 9)
    reference = gray.expand(-1, 3, -1, -1)
    torch.testing.assert_close(network(gray, reference.flip(3)), 2 * reference)


@pytest.mark.parametrize("name", NAMES)
def test_any_layer_can_be_its_attention(name: str) -> None:
    settings = {} if name == "scram" else SMALL
    network = ColorizationNetwork(named_attention(name, settings))
    output = network(torch.rand(1, 1, 8, 8), torch.rand(1, 3, 8, 8))
    assert output.shape == (1, 3, 8, 8)
    output.square().mean().backward()
    assert network.value.weight.grad is not None
    assert network.value.weight.grad.isfinite().all()


def test_wrong_names_are_listed() -> None:
    with pytest.raises(ValueError, match="attention: got 'flash'; allowed are 'psal', 'psal-aggregate'"):
        ColorizationArchitecture("flash").build()
    with pytest.raises(ValueError, match="'performer' has no setting 'window'; it has patch_size, num_heads"):
        ColorizationArchitecture("performer", {"window": 9}).build()


def test_a_file_holds_the_whole_network(tmp_path: Path) -> None:
    architecture = ColorizationArchitecture("psal", {"k": 2, "patch_size": 3}, channels=8)
    network = architecture.build()
    path = tmp_path / "network.safetensors"
    path.write_bytes(network_bytes(network, architecture))
    read = load_colorization_network(path)
    assert repr(read) == repr(network)
    assert not read.training
    gray, reference = torch.rand(1, 1, 12, 12), torch.rand(1, 3, 12, 12)
    assert torch.equal(read(gray, reference), network(gray, reference))


def test_a_layer_is_named_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "performer_pytorch", None)  # importing it is an ImportError
    assert isinstance(named_attention("performer"), PerformerAttention)


def test_files_that_are_no_network(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    with pytest.raises(ValueError, match="model: there is no file"):
        load_colorization_network(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is no safetensors file"):
        load_colorization_network(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="has the format None; expected a 'patchattn network 1' written by"):
        load_colorization_network(path)
    architecture = ColorizationArchitecture()
    path.write_bytes(network_bytes(ColorizationArchitecture(channels=8).build(), architecture))
    with pytest.raises(ValueError, match="do not fit the network it describes"):
        load_colorization_network(path)


def test_aligned_equal_grays_have_equal_features() -> None:
    network = ColorizationArchitecture().build()
    gray = torch.rand(1, 1, 9, 11)
    assert not torch.allclose(network.query(gray), network.key(gray.expand(-1, 3, -1, -1)), atol=0.01)
    network.align()
    torch.testing.assert_close(network.query(gray), network.key(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("size", [(1, 1), (1, 20), (20, 1), (2, 3), (3, 30)])
def test_any_size(size: tuple[int, int]) -> None:
    network = ColorizationNetwork(PatchAttention(patch_size=7))
    assert network(torch.rand(1, 1, *size), torch.rand(1, 3, 9, 14)).shape == (1, 3, *size)
    assert network(torch.rand(1, 1, 9, 14), torch.rand(1, 3, *size)).shape == (1, 3, 9, 14)
