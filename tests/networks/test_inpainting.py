"""The inpainting network: layer by layer from the names of the public checkpoints, its attention, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchattn import ContextualAttention, MaskedPatchAttention
from patchattn.baselines import FullAttention
from patchattn.networks.architectures import ColorizationArchitecture, InpaintingArchitecture
from patchattn.networks.inpainting import ATTENTIONS, Critic, InpaintingNetwork, from_public_inpainting_state
from patchattn.networks.weights import load_colorization_network, load_inpainting_network, network_bytes
from tests.cases import normals

pytestmark = pytest.mark.usefixtures("one_thread")

BRANCH = {
    "1": (5, 1, 5), "2_downsample": (1, 1, 3), "3": (1, 2, 3), "4_downsample": (2, 2, 3), "5": (2, 4, 3),
    "6": (4, 4, 3), "7_atrous": (4, 4, 3), "8_atrous": (4, 4, 3), "9_atrous": (4, 4, 3), "10_atrous": (4, 4, 3),
}  # fmt: skip
"""Layers of the public generator: inputs and outputs in the unit of the first layer's, side of the kernel."""
ENLARGING = {"13": (4, 2, 3), "14": (2, 2, 3), "15": (2, 1, 3), "16": (1, 0.5, 3), "17": (0.5, 3, 3)}
COARSE = {**BRANCH, "2_downsample": (1, 2, 3), "3": (2, 2, 3), "4_downsample": (2, 4, 3), "5": (4, 4, 3),
          "11": (4, 4, 3), "12": (4, 4, 3), **ENLARGING}  # fmt: skip
ATTENTION = {"1": (5, 1, 5), "2_downsample": (1, 1, 3), "3": (1, 2, 3), "4_downsample": (2, 4, 3), "5": (4, 4, 3),
             "6": (4, 4, 3), "9": (4, 4, 3), "10": (4, 4, 3)}  # fmt: skip
JOINED = {"11": (8, 4, 3), "12": (4, 4, 3), **ENLARGING}


def public_shapes(channels: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in a public checkpoint of a generator."""
    shapes: dict[str, tuple[int, ...]] = {}
    for prefix, layers in (
        ("coarse_generator.conv", COARSE),
        ("fine_generator.conv", BRANCH),
        ("fine_generator.pmconv", ATTENTION),
        ("fine_generator.allconv", JOINED),
    ):
        for name, (inputs, outputs, kernel) in layers.items():
            # The first layer reads RGB, ones and the hole; the last writes RGB.
            i = 5 if name == "1" else int(inputs * channels)
            o = 3 if name == "17" else int(outputs * channels)
            shapes[f"{prefix}{name}.conv.weight"] = (o, i, kernel, kernel)
            shapes[f"{prefix}{name}.conv.bias"] = (o,)
    return shapes


def public_state(channels: int, seed: int = 0) -> dict[str, Tensor]:
    """Random weights that neither grow nor vanish from layer to layer."""
    state = {}
    for n, (name, shape) in enumerate(public_shapes(channels).items()):
        deviation = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 if len(shape) == 4 else 0.1
        state[name] = normals(*shape, seed=100 * seed + n, dtype=torch.float32) * deviation
    return state


def test_names_and_shapes_are_those_of_the_public_checkpoints() -> None:
    ours = InpaintingArchitecture().build().state_dict()
    public = public_shapes(32)
    assert len(public) == 2 * (17 + 25)
    renamed = from_public_inpainting_state({name: torch.empty(shape, device="meta") for name, shape in public.items()})
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in renamed.items()
    }


@pytest.mark.parametrize(("entry", "prefix", "size"), [("localD", "local_critic", 8), ("globalD", "global_critic", 16)])
def test_critics_too(entry: str, prefix: str, size: int) -> None:
    public = {"linear.weight": torch.empty(1, 256 * size * size), "linear.bias": torch.empty(1)}
    for n, (inputs, outputs) in enumerate(((3, 64), (64, 128), (128, 256), (256, 256)), 1):
        public[f"dis_conv_module.conv{n}.conv.weight"] = torch.empty(outputs, inputs, 5, 5)
        public[f"dis_conv_module.conv{n}.conv.bias"] = torch.empty(outputs)
    renamed = from_public_inpainting_state({entry: public})
    critic = Critic(16 * size)
    assert {name: tensor.shape for name, tensor in renamed.items()} == {
        f"{prefix}.{name}": tensor.shape for name, tensor in critic.state_dict().items()
    }


def defined(
    state: dict[str, Tensor], picture: Tensor, hole: Tensor, attention: Any, padding: str
) -> tuple[Tensor, Tensor]:
    """The published generator from its weights, without a module; sizes that are multiples of 8."""

    def layer(x: Tensor, name: str, stride: int = 1, dilation: int = 1, follow: Any = functional.elu) -> Tensor:
        weight = state[f"{name}.conv.weight"]
        reach = dilation * (weight.shape[2] // 2)
        x = functional.pad(x, (reach,) * 4, mode="constant" if padding == "zeros" else padding)
        return follow(functional.conv2d(x, weight, state[f"{name}.conv.bias"], stride, dilation=dilation))

    def branch(x: Tensor, prefix: str, follow_last: Any = functional.elu) -> Tensor:
        for name, stride in (("1", 1), ("2_downsample", 2), ("3", 1), ("4_downsample", 2), ("5", 1)):
            x = layer(x, prefix + name, stride)
        return layer(x, prefix + "6", follow=follow_last)

    def dilated(x: Tensor, prefix: str) -> Tensor:
        for n in range(4):
            x = layer(x, f"{prefix}{7 + n}_atrous", dilation=2 ** (n + 1))
        return x

    def enlarged(x: Tensor, prefix: str) -> Tensor:
        for name in ("11", "12", "13", "14", "15", "16"):
            if name in ("13", "15"):
                x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = layer(x, prefix + name)
        return layer(x, prefix + "17", follow=lambda last: last).clamp(-1, 1)

    mask = hole[:, None].float()
    ones = torch.ones_like(mask)
    known = picture * (1 - mask)
    coarse = enlarged(dilated(branch(torch.cat([known, ones, mask], 1), "coarse_generator.conv"),
                              "coarse_generator.conv"), "coarse_generator.conv")  # fmt: skip
    again = torch.cat([coarse * mask + known * (1 - mask), ones, mask], 1)
    imagined = dilated(branch(again, "fine_generator.conv"), "fine_generator.conv")
    features = branch(again, "fine_generator.pmconv", functional.relu)
    features = attention(
        features, features, features, key_mask=functional.interpolate(mask, scale_factor=1 / 4)[:, 0] == 0
    )
    attended = layer(layer(features, "fine_generator.pmconv9"), "fine_generator.pmconv10")
    return coarse, enlarged(torch.cat([imagined, attended], 1), "fine_generator.allconv")


def case(height: int = 80, width: int = 72, batch: int = 2) -> tuple[Tensor, Tensor]:
    picture = normals(batch, 3, height, width, dtype=torch.float32).clamp(-1, 1)
    hole = torch.zeros(batch, height, width, dtype=torch.bool)
    for n in range(batch):
        hole[n, 20 + 4 * n : 45 + 4 * n, 18 : 40 + n] = True
    return picture, hole


@pytest.mark.parametrize("padding", ["reflect", "zeros"])
@pytest.mark.parametrize(
    "attention",
    [ContextualAttention(norm="added"), MaskedPatchAttention(patch_size=3, method="exact", iterations=None)],
    ids=["contextual", "psal"],
)
def test_it_is_the_published_generator(attention: torch.nn.Module, padding: str) -> None:
    state, (picture, hole) = public_state(4), case()
    network = InpaintingNetwork(attention, channels=4, padding_mode=padding)
    network.load_state_dict(from_public_inpainting_state(state))
    with torch.no_grad():
        found = network(picture, hole)
        expected = defined(state, picture, hole, attention, padding)
    for mine, its in zip(found, expected, strict=True):
        assert 0.1 < its.std() < 0.9  # neither all clipped nor all gray
        torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(75, 81), (40, 33), (1, 1), (96, 20)])
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_any_size(size: tuple[int, int], padding: str) -> None:
    """What is added to a picture is its mirror image, again and again."""
    network = InpaintingNetwork(ContextualAttention(), channels=2, padding_mode=padding)
    picture, hole = torch.rand(1, 3, *size), torch.rand(1, *size) < 0.1
    with torch.no_grad():
        filled = network.fill(picture, hole)
        least = 72 if padding == "reflect" else 8
        sides = [max(least, -(-n // 8) * 8) for n in size]
        rows, columns = (
            [min(p % max(1, 2 * n - 2), -p % max(1, 2 * n - 2)) for p in range(m)]
            for n, m in zip(size, sides, strict=True)
        )
        larger = network.fill(picture[:, :, rows][..., columns], hole[:, rows][..., columns])
    assert filled.shape == picture.shape
    torch.testing.assert_close(filled, larger[..., : size[0], : size[1]])


def test_known_pixels_are_returned_and_hidden_ones_not_looked_at() -> None:
    network = InpaintingArchitecture("contextual", channels=2).build()
    picture, hole = case(batch=1)
    picture = (picture + 1) / 2
    other = torch.where(hole[:, None], torch.rand_like(picture), picture)
    with torch.no_grad():
        filled, again = network.fill(picture, hole), network.fill(other, hole)
    assert torch.equal(filled, again)
    assert torch.equal(torch.where(hole[:, None], 0, filled), torch.where(hole[:, None], 0, picture))
    assert not torch.equal(filled, picture)
    assert filled.min() >= 0
    assert filled.max() <= 1


@pytest.mark.parametrize("name", ATTENTIONS)
def test_gradients_reach_every_weight(name: str) -> None:
    network = InpaintingArchitecture(name, {"patch_size": 3}, channels=2).build()
    picture, hole = case()
    coarse, refined = network(picture, hole)
    (coarse.square().mean() + refined.square().mean()).backward()
    for weight in network.parameters():
        assert weight.grad is not None
        assert weight.grad.isfinite().all()


def test_attention_is_exchanged_in_a_trained_network(tmp_path: Path) -> None:
    architecture = InpaintingArchitecture("contextual", channels=4)
    network = architecture.build()
    path = tmp_path / "network.safetensors"
    path.write_bytes(network_bytes(network, architecture))
    picture, hole = case(batch=1)
    read = load_inpainting_network(path)
    assert repr(read) == repr(network)
    assert not read.training
    with torch.no_grad():
        assert torch.equal(read(picture, hole)[1], network(picture, hole)[1])
        other = load_inpainting_network(path, attention="psal", settings={"patch_size": 3})
        network.refinement.attention = MaskedPatchAttention(patch_size=3)
        assert torch.equal(other(picture, hole)[1], network(picture, hole)[1])
        network.refinement.attention = FullAttention(patch_size=3)
        assert network.fill(picture, hole).isfinite().all()


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".p"])
def test_public_checkpoints(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"gen_00430000{suffix}", public_state(4)
    torch.save(state, path)
    network = load_inpainting_network(path)
    assert (network.padding_mode, network.refinement.attention.settings["norm"]) == ("zeros", "added")
    assert torch.equal(network.coarse.conv1.weight, state["coarse_generator.conv1.conv.weight"])
    assert isinstance(load_inpainting_network(path, attention="psal").refinement.attention, MaskedPatchAttention)


class NoTensor:
    """What a pickle could run."""


def test_files_that_are_no_such_network(tmp_path: Path) -> None:
    path, public = tmp_path / "network.safetensors", tmp_path / "gen.pt"
    architecture = ColorizationArchitecture()
    path.write_bytes(network_bytes(architecture.build(), architecture))
    with pytest.raises(ValueError, match="is a network for colorization; expected one for inpainting"):
        load_inpainting_network(path)
    other = InpaintingArchitecture(channels=4)
    path.write_bytes(network_bytes(other.build(), other))
    with pytest.raises(ValueError, match="is a network for inpainting; expected one for colorization"):
        load_colorization_network(path)
    with pytest.raises(ValueError, match="attention: got 'full'; allowed are 'psal', 'contextual'"):
        load_inpainting_network(path, attention="full")
    with pytest.raises(ValueError, match=r"settings: got \{'k': 1\} without an attention"):
        load_inpainting_network(path, settings={"k": 1})
    path.write_bytes(network_bytes(InpaintingArchitecture(channels=2).build(), other))
    with pytest.raises(ValueError, match="do not fit the network it describes"):
        load_inpainting_network(path)
    with pytest.raises(ValueError, match="model: there is no file"):
        load_inpainting_network(public)
    for content in (b"", b"no tensors"):
        public.write_bytes(content)
        with pytest.raises(ValueError, match="is no PyTorch file of tensors"):
            load_inpainting_network(public)
    torch.save(NoTensor(), public)
    with pytest.raises(ValueError, match="is no PyTorch file of tensors"):
        load_inpainting_network(public)
    torch.save({"localD": {}}, public)
    with pytest.raises(ValueError, match=r"holds no tensor 'coarse_generator\.conv1\.conv\.weight'"):
        load_inpainting_network(public)
    state = public_state(4)
    torch.save({**state, "other.conv.weight": torch.zeros(1)}, public)
    with pytest.raises(ValueError, match=r"state: got a tensor 'other\.conv\.weight'; expected names that begin with"):
        load_inpainting_network(public)


@pytest.mark.parametrize(
    ("picture", "hole", "message"),
    [
        (torch.rand(2, 1, 9, 9), torch.ones(2, 9, 9) > 0, r"image: expected shape \(B, 3, height, width\), got \(2,"),
        (torch.rand(2, 3, 9, 9), torch.ones(2, 9, 9), r"hole: .* of shape \(2 or 1, 9, 9\) .* got torch.float32"),
        (torch.rand(2, 3, 9, 9), torch.ones(3, 9, 9) > 0, r"hole: .* of shape \(3, 9, 9\)"),
        (torch.rand(2, 3, 9, 9), torch.ones(2, 9, 8) > 0, r"hole: .* of shape \(2, 9, 8\)"),
    ],
)  # fmt: skip
def test_images_and_holes_that_do_not_fit(picture: Tensor, hole: Tensor, message: str) -> None:
    network = InpaintingArchitecture(channels=2).build()
    for call in (network, network.fill):
        with pytest.raises(ValueError, match=message):
            call(picture, hole)


def test_what_does_not_fit_is_refused_before_the_first_convolution() -> None:
    network = InpaintingNetwork(ContextualAttention(memory_limit=1000), channels=4)
    network.coarse.register_forward_pre_hook(lambda module, inputs: pytest.fail("the coarse network was asked"))
    hole = torch.zeros(1, 90, 75, dtype=torch.bool)
    with pytest.raises(RuntimeError, match=r"from \(24, 20\) to \(24, 20\) positions at rate 2, .* the limit is 1,000"):
        network.fill(torch.rand(1, 3, 90, 75), hole)


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="channels: got 5; expected an even number"):
        InpaintingArchitecture(channels=5).build()
    with pytest.raises(ValueError, match="padding_mode: got 'valid'; allowed are 'reflect', 'zeros'"):
        InpaintingArchitecture(padding_mode="valid").build()
    with pytest.raises(ValueError, match="'contextual' has no setting 'k'; it has patch_size, rate"):
        InpaintingArchitecture("contextual", {"k": 3}).build()
    with pytest.raises(ValueError, match="size: expected an integer of at least 1"):
        Critic(0)


@pytest.mark.parametrize("size", [16, 20, 33])
def test_a_critic_judges_squares_of_its_size(size: int) -> None:
    critic = Critic(size, channels=2)
    picture = torch.rand(3, 3, size, size, requires_grad=True)
    (slope,) = torch.autograd.grad(critic(picture).sum(), picture, create_graph=True)
    slope.square().sum().backward()  # a gradient of a gradient
    assert critic.conv1.weight.grad is not None
    assert critic.conv1.weight.grad.abs().sum() > 0
