"""Guided colorization: better than what needs no matches, and pictures that differ in every way they can."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor, nn

from patchattn.tasks.codecs.icc import Curve, gray_profile
from patchattn.tasks.color_profiles import srgb_profile
from patchattn.tasks.colorize import Colorization, colorize
from patchattn.tasks.colours import to_gray, to_lab
from patchattn.tasks.images import Picture

GRAY_GAMMA_18 = gray_profile(Curve(1.8), "gamma 1.8")

pytestmark = pytest.mark.usefixtures("one_thread")


def colours(array: object) -> Tensor:
    return (torch.as_tensor(array).float() / 255).permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Two views of one motorcycle, cropped and moved by more than the views differ."""
    left, right, _ = skimage.data.stereo_motorcycle()
    return colours(left[180:276, 300:428]), colours(right[170:270, 290:430])


@pytest.fixture(scope="module")
def coloured(pair: tuple[Tensor, Tensor]) -> Colorization:
    return colorize(to_gray(pair[0]), pair[1])


def chroma_error(picture: Tensor, truth: Tensor) -> float:
    return float((to_lab(picture) - to_lab(truth))[:, 1:].square().mean())


def by_brightness(gray: Tensor, reference: Tensor) -> Tensor:
    """The mean colour of the reference's pixels of the same brightness."""
    level = (to_gray(reference) * 63).round().long().flatten()
    count = torch.zeros(64).index_add_(0, level, torch.ones(len(level)))
    mean = torch.zeros(3, 64).index_add_(1, level, reference[0].flatten(1)) / count.clamp(min=1)
    return mean[:, (gray * 63).round().long().flatten()].view(1, 3, *gray.shape[2:])


def test_better_than_a_colour_for_each_brightness(pair: tuple[Tensor, Tensor], coloured: Colorization) -> None:
    target, reference = pair
    error = chroma_error(coloured.picture.colour, target)
    assert error < 0.6 * chroma_error(by_brightness(to_gray(target), reference), target)
    assert error < 0.25 * chroma_error(to_gray(target).expand(-1, 3, -1, -1), target)
    assert error < 0.5 * chroma_error(reference[:, :, :96, :128], target)


def test_luminance_is_the_target_s(pair: tuple[Tensor, Tensor], coloured: Colorization) -> None:
    torch.testing.assert_close(to_gray(coloured.picture.colour), to_gray(pair[0]), atol=3e-6, rtol=0)
    assert coloured.picture.colour.min() >= 0
    assert coloured.picture.colour.max() <= 1


def test_what_else_is_told(coloured: Colorization) -> None:
    assert coloured.field is not None
    assert coloured.field.index.shape == (1, 1, 3, 48, 64)
    assert tuple(coloured.field.key_shape) == (50, 70)
    assert coloured.seconds > 0
    assert coloured.peak_memory is None or coloured.peak_memory > 2**24


def test_votes_help(pair: tuple[Tensor, Tensor], coloured: Colorization) -> None:
    alone = colorize(to_gray(pair[0]), pair[1], aggregate=False)
    assert chroma_error(coloured.picture.colour, pair[0]) < chroma_error(alone.picture.colour, pair[0])


def test_the_same_picture_gets_its_colours_back(pair: tuple[Tensor, Tensor]) -> None:
    result = colorize(to_gray(pair[0]), pair[0], k=1, aggregate=False, method="exact")
    torch.testing.assert_close(result.picture.colour, pair[0], atol=0.01, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("size", [(31, 47), (6, 50)])
def test_any_size_and_scale(pair: tuple[Tensor, Tensor], scale: int, size: tuple[int, int]) -> None:
    gray = to_gray(pair[0])[:, :, : size[0], : size[1]]
    result = colorize(gray, pair[1][:, :, :53, :71], scale=scale, patch_size=5)
    assert result.picture.size == size
    torch.testing.assert_close(to_gray(result.picture.colour), gray, atol=3e-6, rtol=0)
    assert chroma_error(result.picture.colour, gray.expand(-1, 3, -1, -1)) > 1


def test_the_target_s_own_colours_do_not_count(pair: tuple[Tensor, Tensor]) -> None:
    one, other = (colorize(target, pair[1]) for target in (pair[0], to_gray(pair[0])))
    assert torch.equal(one.picture.colour, other.picture.colour)


def test_depth_and_alpha_are_the_target_s_and_colors_are_srgb(pair: tuple[Tensor, Tensor]) -> None:
    gray = to_gray(pair[0])[:, :, :24, :32]
    target = Picture(gray, alpha=gray, bit_depth=16, icc_profile=GRAY_GAMMA_18)
    result = colorize(target, Picture(pair[1], alpha=torch.ones(1, 1, 100, 140))).picture
    assert result.colour.shape == (1, 3, 24, 32)
    assert result.bit_depth == 16
    assert result.alpha is gray
    assert result.icc_profile == srgb_profile()
    # It is as bright as the profile says.
    bright = gray.double() ** 1.8
    shown = torch.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright ** (1 / 2.4) - 0.055)
    torch.testing.assert_close(to_gray(result.colour).double(), shown, rtol=0, atol=1e-4)


def test_start_from_a_field(pair: tuple[Tensor, Tensor], coloured: Colorization) -> None:
    """With no iterations, the search can only keep what it starts from, or add to it."""
    again = colorize(to_gray(pair[0]), pair[1], init=coloured.field, iterations=0)
    assert again.field is not None
    assert coloured.field is not None
    assert (again.field.similarity >= coloured.field.similarity - 1e-5).all()


def test_seeds(pair: tuple[Tensor, Tensor], coloured: Colorization) -> None:
    again = colorize(to_gray(pair[0]), pair[1])
    assert torch.equal(again.picture.colour, coloured.picture.colour)
    one, other = (colorize(pair[0], pair[1], method="patchmatch", iterations=0, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.picture.colour, other.picture.colour)


class Red(nn.Module):
    """A network that answers with red, and remembers what it was asked."""

    def forward(self, gray: Tensor, reference: Tensor) -> Tensor:
        self.asked = gray, reference
        return torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(-1, -1, *gray.shape[2:])


@pytest.mark.parametrize(("given", "learned", "scale"), [(1, 8, 1), (3, None, 3), (None, None, 1), (None, 30, None)])
def test_a_network_s_colours_get_the_target_s_luminance(
    pair: tuple[Tensor, Tensor], given: int | None, learned: int | None, scale: int | None
) -> None:
    network = Red()
    network.size = learned
    result = colorize(pair[0], pair[1], network=network, scale=given)
    if scale is None:
        scale = -(-max(pair[0].shape[2:]) // 30)
        assert scale > 1
    for asked, picture in zip(network.asked, (to_gray(pair[0]), pair[1]), strict=True):
        assert tuple(asked.shape[2:]) == tuple(-(-n // scale) for n in picture.shape[2:])
        torch.testing.assert_close(asked[..., 0, 0], picture[..., :scale, :scale].mean((2, 3)))
    assert result.field is None
    assert result.picture.size == tuple(pair[0].shape[2:])
    red, green, _ = result.picture.colour[0]
    assert (red >= green - 1e-6).all()
    assert (red > green + 0.1).float().mean() > 0.5
    torch.testing.assert_close(to_gray(result.picture.colour), to_gray(pair[0]), atol=3e-6, rtol=0)


def test_stages_are_told(pair: tuple[Tensor, Tensor]) -> None:
    told: list[str] = []
    colorize(pair[0], pair[1], progress=told.append)
    colorize(pair[0], pair[1], progress=told.append, network=Red())
    assert told == ["matching", "attending", "colouring", "asking the network", "colouring"]


def test_a_reference_without_colour_gives_gray(pair: tuple[Tensor, Tensor]) -> None:
    result = colorize(pair[0], to_gray(pair[1]).expand(-1, 3, -1, -1)).picture.colour
    assert (result.amax(1) - result.amin(1)).max() < 0.01


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": torch.rand(1, 1, 32, 32)}, "reference: it has one channel, gray; expected three"),
        ({"gray": torch.rand(3, 32, 32)}, "colour: got shape"),
        ({"scale": 0}, "scale: expected a whole number of at least 1"),
        ({"patch_size": 4}, "patch_size: expected odd numbers"),
        ({"k": 0}, "k: "),
        ({"temperature": 0.0}, "temperature: expected a number above 0"),
        ({"method": "magic"}, "method: "),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"gray": torch.rand(1, 1, 32, 32), "reference": torch.rand(1, 3, 32, 32)}
    with pytest.raises(ValueError, match=message):
        colorize(**(arguments | changes))  # type: ignore[arg-type]
