"""The super-resolution network: layer by layer from the names of the published checkpoints, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional

from patchattn import CrossScaleAttention, CrossScalePatchAttention
from patchattn.baselines import FullAttention, LocalAttention
from patchattn.networks.architectures import ColorizationArchitecture, SuperResolutionArchitecture
from patchattn.networks.mirror import mirrored
from patchattn.networks.superresolution import SuperResolutionNetwork, from_public_superresolution_state
from patchattn.networks.weights import load_colorization_network, load_superresolution_network, network_bytes
from patchattn.training.superresolution import made_small
from tests.cases import normals

pytestmark = pytest.mark.usefixtures("one_thread")


def public_shapes(scale: int, channels: int = 128, depth: int = 12) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors in a published checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs, kernel, kernel), (outputs,)

    def followed(name: str, inputs: int, outputs: int, kernel: int) -> None:
        layer(f"{name}.0", inputs, outputs, kernel)
        shapes[f"{name}.1.weight"] = (1,)

    c = channels
    kernel = {2: 6, 3: 9, 4: 6}[scale]
    for name in ("sub_mean", "add_mean"):
        layer(name, 3, 3, 1)
    followed("head.0", 3, c, 3)
    followed("head.1", c, c, 3)
    cell = ["down_sample_1", "error_encode"]
    for projection in ("multi_source_projection", "multi_source_projection_2")[: 2 if scale == 4 else 1]:
        at = f"SEM.{projection}"
        shapes[f"{at}.up_attention.escape_NaN"] = (1,)
        for match in ("up_attention.conv_match_1", "up_attention.conv_match_2"):
            followed(f"{at}.{match}", c, c // 2, 1)
        for match in ("down_attention.conv_match1", "down_attention.conv_match2"):
            followed(f"{at}.{match}", c, c // 2, 1)
        for branch in ("up_attention", "down_attention"):
            followed(f"{at}.{branch}.conv_assembly", c, c, 1)
        followed(f"{at}.upsample", c, c, kernel)
        layer(f"{at}.encoder.body.0", c, c, 3)
        shapes[f"{at}.encoder.body.1.weight"] = (1,)
        layer(f"{at}.encoder.body.2", c, c, 3)
    for name in cell if scale == 4 else [*cell, "down_sample_2"]:
        followed(f"SEM.{name}", c, c, kernel)
    if scale == 4:
        for name in ("down_sample_3", "down_sample_4", "error_encode_2"):
            followed(f"SEM.{name}", c, c, 8)
    followed("SEM.post_conv", c, c, 3)
    layer("tail.0", depth * c, 3, 3)
    return shapes


def public_state(scale: int, channels: int, depth: int) -> dict[str, Tensor]:
    """Random weights that neither grow nor vanish from layer to layer."""
    state = {}
    for n, (name, shape) in enumerate(public_shapes(scale, channels, depth).items()):
        deviation = (2 / (shape[1] * shape[2] * shape[3])) ** 0.5 if len(shape) == 4 else 0.1
        state[name] = normals(*shape, seed=n) * deviation
    mean = torch.tensor([0.4488, 0.4371, 0.4040], dtype=torch.float64)
    for sign, name in ((-1, "sub_mean"), (1, "add_mean")):
        state[f"{name}.weight"] = torch.eye(3, dtype=torch.float64).view(3, 3, 1, 1)
        state[f"{name}.bias"] = sign * mean
    return state


@pytest.mark.parametrize(("scale", "numbers"), [(2, 3_061_265), (3, 6_010_385), (4, 6_568_603)])
def test_names_and_shapes_are_those_of_the_published_checkpoints(scale: int, numbers: int) -> None:
    architecture = SuperResolutionArchitecture(scale, in_scale="full", channels=128, depth=12, skip=False)
    ours = architecture.build().state_dict()
    public = {name: torch.empty(shape, device="meta") for name, shape in public_shapes(scale).items()}
    public["sub_mean.bias"] = -torch.tensor([0.4488, 0.4371, 0.4040])
    renamed = from_public_superresolution_state(public)
    assert {name: tuple(tensor.shape) for name, tensor in ours.items()} == {
        name: tuple(tensor.shape) for name, tensor in renamed.items()
    }
    assert sum(tensor.numel() for tensor in ours.values()) == numbers


def defined(state: dict[str, Tensor], picture: Tensor, scale: int, depth: int) -> Tensor:
    """The published network from its weights, without a module: attention by dense matrices of all scores."""

    def prelu(x: Tensor, name: str) -> Tensor:
        return functional.prelu(x, state[f"{name}.weight"])

    def conv(x: Tensor, name: str, stride: int = 1, padding: int | None = None) -> Tensor:
        weight = state[f"{name}.weight"]
        padding = weight.shape[2] // 2 if padding is None else padding
        return functional.conv2d(x, weight, state[f"{name}.bias"], stride, padding)

    def block(x: Tensor, name: str) -> Tensor:
        return prelu(conv(x, f"{name}.0"), f"{name}.1")

    def resized(x: Tensor, name: str, stride: int, *, up: bool) -> Tensor:
        weight, bias = state[f"{name}.0.weight"], state[f"{name}.0.bias"]
        padding = {6: 2, 9: 3, 8: 2}[weight.shape[2]]
        function = functional.conv_transpose2d if up else functional.conv2d
        return prelu(function(x, weight, bias, stride, padding), f"{name}.1")

    def in_scale(x: Tensor, name: str) -> Tensor:
        q, k, v = (block(x, f"{name}.{part}").flatten(2) for part in ("conv_match1", "conv_match2", "conv_assembly"))
        return (v @ (q.transpose(1, 2) @ k).softmax(2).transpose(1, 2)).view(x.shape)

    def cross_scale(x: Tensor, name: str, ratio: int) -> Tensor:
        query, value = block(x, f"{name}.conv_match_1"), block(x, f"{name}.conv_assembly")
        smaller = functional.interpolate(x, scale_factor=1 / ratio, mode="bilinear")
        key = block(smaller, f"{name}.conv_match_2")
        rows = []
        for q, k, v in zip(query, key, value, strict=True):
            patches = functional.unfold(k[None], 3, padding=1)[0].T.reshape(-1, len(k), 3, 3)
            patches = patches / patches.square().sum((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-4)
            weights = (10 * functional.conv2d(q[None], patches, padding=1)).softmax(1)
            wide = functional.unfold(functional.pad(v[None], (ratio,) * 4), 3 * ratio, stride=ratio)[0].T
            wide = wide.reshape(-1, len(v), 3 * ratio, 3 * ratio)
            rows.append(functional.conv_transpose2d(weights, wide, stride=ratio, padding=ratio) / 6)
        return torch.cat(rows)

    def projection(x: Tensor, name: str, ratio: int) -> Tensor:
        down = resized(in_scale(x, f"{name}.down_attention"), f"{name}.upsample", ratio, up=True)
        difference = cross_scale(x, f"{name}.up_attention", ratio) - down
        encoded = prelu(conv(difference, f"{name}.encoder.body.0"), f"{name}.encoder.body.1")
        return down + conv(encoded, f"{name}.encoder.body.2") + difference

    def cell(x: Tensor) -> tuple[Tensor, Tensor]:
        ratio = 2 if scale == 4 else scale
        high = projection(x, "SEM.multi_source_projection", ratio)
        lost = x - resized(high, "SEM.down_sample_1", ratio, up=False)
        high = high + resized(lost, "SEM.error_encode", ratio, up=True)
        last = "SEM.down_sample_2"
        if scale == 4:
            high = projection(high, "SEM.multi_source_projection_2", 2)
            lost = x - resized(high, "SEM.down_sample_3", 4, up=False)
            high = high + resized(lost, "SEM.error_encode_2", 4, up=True)
            last = "SEM.down_sample_4"
        return high, block(resized(high, last, scale, up=False), "SEM.post_conv")

    x = block(block(conv(picture, "sub_mean"), "head.0"), "head.1")
    enlarged = []
    for _ in range(depth):
        high, x = cell(x)
        enlarged.append(high)
    return conv(conv(torch.cat(enlarged, 1), "tail.0"), "add_mean")


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_it_is_the_published_network(scale: int) -> None:
    state = public_state(scale, 4, 3)
    network = SuperResolutionNetwork(
        scale, CrossScaleAttention(), FullAttention(patch_size=1, similarity="dot"), channels=4, depth=3
    ).double()
    network.load_state_dict(from_public_superresolution_state(state))
    picture = torch.rand(2, 3, 12, 18, dtype=torch.float64)
    torch.testing.assert_close(network(picture), defined(state, picture, scale, 3))
    # PSAL with all matches is full attention, and a window that holds the picture as well.
    network.cross_scale_attention = CrossScalePatchAttention(k=54, method="exact")
    network.in_scale_attention = LocalAttention(patch_size=1, similarity="dot", window=40)
    if scale < 4:  # whose second enlargement has more keys
        torch.testing.assert_close(network(picture), defined(state, picture, scale, 3))


def small(scale: int, cross_scale: str = "psal", **settings: Any) -> SuperResolutionNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SuperResolutionArchitecture(scale, cross_scale, channels=4, **settings).build()


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (13, 11)])
@pytest.mark.parametrize("cross_scale", ["full", "psal"])
def test_any_size(scale: int, size: tuple[int, int], cross_scale: str) -> None:
    network = small(scale, cross_scale)
    picture = torch.rand(1, 3, *size)
    enlarged = network.enlarge(picture)
    assert enlarged.shape == (1, 3, scale * size[0], scale * size[1])
    assert enlarged.min() >= 0
    assert enlarged.max() <= 1
    framed = mirrored(picture, 2 if scale == 4 else scale)
    torch.testing.assert_close(network.enlarge(framed)[..., : enlarged.shape[2], : enlarged.shape[3]], enlarged)


def test_a_skip_leaves_but_the_rest_to_learn() -> None:
    network = small(2)
    torch.nn.init.zeros_(network.tail.weight)
    assert network.tail.bias is not None
    torch.nn.init.zeros_(network.tail.bias)
    picture = torch.rand(1, 3, 8, 10)
    bicubic = functional.interpolate(picture, scale_factor=2, mode="bicubic", antialias=True)
    torch.testing.assert_close(network(picture), bicubic)
    network.skip = False
    torch.testing.assert_close(network(picture)[0, :, 3, 3], torch.tensor([0.4488, 0.4371, 0.4040]))


@pytest.mark.parametrize("cross_scale", ["full", "psal"])
def test_everything_learns(cross_scale: str) -> None:
    network = small(4, cross_scale, cross_scale_settings={"k": 3} if cross_scale == "psal" else {})
    network(torch.rand(2, 3, 8, 8)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # A slope learns from what is below 0, which may be nothing here.
        assert parameter.grad.any() or parameter.numel() == 1, name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 5}, "scale: got 5; allowed are 2, 3, 4"),
        ({"channels": 5}, "channels: got 5; expected an even number"),
        ({"depth": 0}, "depth: expected an integer of at least 1"),
        ({"cross_scale": "local"}, "cross_scale: got 'local'; allowed are 'full', 'psal'"),
        ({"in_scale": "psal"}, "in_scale: got 'psal'; allowed are 'full', 'local'"),
        ({"in_scale_settings": {"k": 3}}, "in_scale: 'local' has no setting 'k'; it has window"),
    ],
)
def test_wrong_arguments_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuperResolutionArchitecture(**settings).build()


def test_wrong_images_are_named() -> None:
    with pytest.raises(ValueError, match=r"image: expected shape \(B, 3, height, width\), got \(1, 1, 8, 8\)"):
        small(2)(torch.rand(1, 1, 8, 8))


def saved(folder: Path, architecture: SuperResolutionArchitecture) -> Path:
    path = folder / "network.safetensors"
    path.write_bytes(network_bytes(architecture.build(), architecture))
    return path


def test_a_file_gives_the_same_network_with_any_attention(tmp_path: Path) -> None:
    architecture = SuperResolutionArchitecture(3, "psal", {"k": 2}, "local", {"window": 8}, channels=4, depth=1)
    path = saved(tmp_path, architecture)
    network = load_superresolution_network(path)
    assert (network.scale, network.depth, network.channels, network.skip) == (3, 1, 4, True)
    assert isinstance(network.cross_scale_attention, CrossScalePatchAttention)
    assert network.cross_scale_attention.settings["k"] == 2
    other = load_superresolution_network(path, cross_scale="full", in_scale="full")
    assert isinstance(other.cross_scale_attention, CrossScaleAttention)
    assert isinstance(other.in_scale_attention, FullAttention)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_published_checkpoint_says_what_it_is(tmp_path: Path, scale: int) -> None:
    state = {name: tensor.float() for name, tensor in public_state(scale, 4, 3).items()}
    torch.save(state, tmp_path / "model.pt")
    network = load_superresolution_network(tmp_path / "model.pt")
    assert (network.scale, network.channels, network.depth, network.skip) == (scale, 4, 3, False)
    picture = torch.rand(1, 3, 6, 12)
    torch.testing.assert_close(network(picture), defined(state, picture, scale, 3), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_weights_that_come_along_suit_both_attentions(scale: int) -> None:
    """Table 7's claim, on a photograph: within 0.1 dB of full attention, and both above bicubic interpolation."""
    truth = torch.from_numpy(skimage.data.coffee()[60:156, 200:344]).permute(2, 0, 1)[None] / 255
    picture = made_small(truth, scale)
    enlarged = {
        name: load_superresolution_network(scale=scale, cross_scale=name).enlarge(picture) for name in ("full", "psal")
    }
    enlarged["bicubic"] = functional.interpolate(picture, scale_factor=scale, mode="bicubic", antialias=True)
    psnr = {name: -10 * float((image - truth).square().mean().log10()) for name, image in enlarged.items()}
    assert not torch.equal(enlarged["full"], enlarged["psal"])
    assert abs(psnr["psal"] - psnr["full"]) < 0.1
    assert psnr["psal"] > psnr["bicubic"] + 0.5


def test_wrong_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model: there is no file .*none\.pt"):
        load_superresolution_network(tmp_path / "none.pt")
    with pytest.raises(ValueError, match="state: got a tensor 'body'; expected names that begin with head"):
        from_public_superresolution_state({"body": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"state: the network subtracts \[114.*expected \[0.4488"):
        from_public_superresolution_state({"sub_mean.bias": -255 * torch.tensor([0.4488, 0.4371, 0.4040])})
    with pytest.raises(ValueError, match="scale: got 5; allowed are 2, 3, 4"):
        load_superresolution_network(scale=5)
    with pytest.raises(ValueError, match=r"cross_scale_settings: got .* without an attention that they belong to"):
        load_superresolution_network(cross_scale_settings={"k": 1})
    colors = tmp_path / "colors.safetensors"
    colors.write_bytes(network_bytes(ColorizationArchitecture().build(), ColorizationArchitecture()))
    with pytest.raises(ValueError, match="is a network for colorization; expected one for superresolution"):
        load_superresolution_network(colors)
    with pytest.raises(ValueError, match="is a network for superresolution; expected one for colorization"):
        load_colorization_network(saved(tmp_path, SuperResolutionArchitecture(channels=4)))
