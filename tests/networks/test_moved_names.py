"""Old names of the networks' modules and functions go on working, with a warning."""

from __future__ import annotations

import importlib
import pickle

import pytest
import torch

from patchattn.baselines import FullAttention
from patchattn.networks import inpainting, superresolution, weights


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("contextual", inpainting, ("ATTENTIONS", "Critic", "InpaintingNetwork")),
        (
            "cross_scale",
            superresolution,
            ("CROSS_SCALE", "IN_SCALE", "SCALES", "SuperResolutionNetwork", "from_public_superresolution_state"),
        ),
    ],
)
def test_old_modules_lead_to_the_new_ones(old: str, new: object, names: tuple[str, ...]) -> None:
    module = importlib.import_module(f"patchattn.networks.{old}")
    for name in names:
        with pytest.warns(
            DeprecationWarning, match=rf"networks\.{old}\.{name} has moved to .*; the old name is removed"
        ):
            assert getattr(module, name) is getattr(new, name)


def test_functions_that_say_their_task_now() -> None:
    from patchattn.networks import contextual

    with pytest.warns(DeprecationWarning, match=r"moved to patchattn\.networks\.weights\.load_colorization_network;"):
        from patchattn.networks.weights import load_network
    assert load_network is weights.load_colorization_network
    with pytest.warns(DeprecationWarning, match=r"moved to .*\.inpainting\.from_public_inpainting_state;"):
        assert contextual.from_public_state is inpainting.from_public_inpainting_state


@pytest.mark.filterwarnings("ignore:.*has moved to:DeprecationWarning")
@pytest.mark.parametrize(
    ("old", "new", "network"),
    [
        ("contextual", "inpainting", inpainting.InpaintingNetwork(FullAttention(), channels=2)),
        (
            "cross_scale",
            "superresolution",
            superresolution.SuperResolutionNetwork(4, FullAttention(), FullAttention(), channels=2, depth=1),
        ),
    ],
)
def test_whole_networks_that_were_saved_under_old_names_can_be_read(old: str, new: str, network: object) -> None:
    # Protocol 0 is text without lengths, in which names can be replaced.
    saved = pickle.dumps(network, protocol=0)
    before = saved.replace(f"patchattn.networks.{new}\n".encode(), f"patchattn.networks.{old}\n".encode())
    assert before.count(f"patchattn.networks.{old}\n".encode()) >= 4
    assert type(pickle.loads(before)) is type(network)


def test_images_that_are_called_pictures() -> None:  # deprecated name
    critic = inpainting.Critic(16, channels=2)
    image = torch.rand(1, 3, 16, 16)
    with pytest.warns(DeprecationWarning, match=r"^forward\(picture=...\) is now forward\(image=...\);"):
        assert torch.equal(critic(picture=image), critic(image))
    network = superresolution.SuperResolutionNetwork(2, Nearest(), FullAttention(), channels=2, depth=1)
    for call in (network, network.enlarge):
        with pytest.warns(DeprecationWarning, match=r"\(picture=...\) is now \w+\(image=...\);"):
            assert torch.equal(call(picture=image), call(image=image))
    with pytest.raises(TypeError, match="picture"):
        critic(image, picture=image, image=image)


class Nearest(torch.nn.Module):
    """Attention's place is taken by the value itself."""

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(value, scale_factor=2)
