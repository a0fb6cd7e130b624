"""Guided colorization: better than what needs no matches, and images that differ in every way they can."""

from __future__ import annotations

import pytest
import skimage.data
import torch
from torch import Tensor, nn

from patchattn.networks.weights import load_colorization_network
from patchattn.tasks.codecs.icc import Curve, gray_profile
from patchattn.tasks.color_profiles import srgb_profile
from patchattn.tasks.colorize import Colorization, colorize
from patchattn.tasks.colors import to_gray, to_lab
from patchattn.tasks.images import Image

GRAY_GAMMA_18 = gray_profile(Curve(1.8), "gamma 1.8")

pytestmark = pytest.mark.usefixtures("one_thread")


def colors(array: object) -> Tensor:
    return (torch.as_tensor(array).float() / 255).permute(2, 0, 1)[None].contiguous()


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Two views of one motorcycle, cropped and moved by more than the views differ."""
    left, right, _ = skimage.data.stereo_motorcycle()
    return colors(left[180:276, 300:428]), colors(right[170:270, 290:430])


@pytest.fixture(scope="module")
def colored(pair: tuple[Tensor, Tensor]) -> Colorization:
    return colorize(to_gray(pair[0]), pair[1])


def chroma_error(image: Tensor, truth: Tensor) -> float:
    return float((to_lab(image) - to_lab(truth))[:, 1:].square().mean())


def by_brightness(gray: Tensor, reference: Tensor) -> Tensor:
    """The mean color of the reference's pixels of the same brightness."""
    level = (to_gray(reference) * 63).round().long().flatten()
    count = torch.zeros(64).index_add_(0, level, torch.ones(len(level)))
    mean = torch.zeros(3, 64).index_add_(1, level, reference[0].flatten(1)) / count.clamp(min=1)
    return mean[:, (gray * 63).round().long().flatten()].view(1, 3, *gray.shape[2:])


def test_better_than_a_color_for_each_brightness(pair: tuple[Tensor, Tensor], colored: Colorization) -> None:
    target, reference = pair
    error = chroma_error(colored.image.color, target)
    assert error < 0.6 * chroma_error(by_brightness(to_gray(target), reference), target)
    assert error < 0.25 * chroma_error(to_gray(target).expand(-1, 3, -1, -1), target)
    assert error < 0.5 * chroma_error(reference[:, :, :96, :128], target)


def test_luminance_is_the_target_s(pair: tuple[Tensor, Tensor], colored: Colorization) -> None:
    torch.testing.assert_close(to_gray(colored.image.color), to_gray(pair[0]), atol=3e-6, rtol=0)
    assert colored.image.color.min() >= 0
    assert colored.image.color.max() <= 1


def test_what_else_is_told(colored: Colorization) -> None:
    assert colored.field is not None
    assert colored.field.index.shape == (1, 1, 3, 48, 64)
    assert tuple(colored.field.key_shape) == (50, 70)
    assert colored.seconds > 0


def test_votes_help(pair: tuple[Tensor, Tensor], colored: Colorization) -> None:
    alone = colorize(to_gray(pair[0]), pair[1], aggregate=False)
    assert chroma_error(colored.image.color, pair[0]) < chroma_error(alone.image.color, pair[0])


def test_the_same_image_gets_its_colors_back(pair: tuple[Tensor, Tensor]) -> None:
    result = colorize(to_gray(pair[0]), pair[0], k=1, aggregate=False, method="exact")
    torch.testing.assert_close(result.image.color, pair[0], atol=0.01, rtol=0)


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("size", [(31, 47), (6, 50)])
def test_any_size_and_scale(pair: tuple[Tensor, Tensor], scale: int, size: tuple[int, int]) -> None:
    gray = to_gray(pair[0])[:, :, : size[0], : size[1]]
    result = colorize(gray, pair[1][:, :, :53, :71], scale=scale, patch_size=5)
    assert result.image.size == size
    torch.testing.assert_close(to_gray(result.image.color), gray, atol=3e-6, rtol=0)
    assert chroma_error(result.image.color, gray.expand(-1, 3, -1, -1)) > 1


def test_the_target_s_own_colors_do_not_count(pair: tuple[Tensor, Tensor]) -> None:
    one, other = (colorize(target, pair[1]) for target in (pair[0], to_gray(pair[0])))
    assert torch.equal(one.image.color, other.image.color)


def test_depth_and_alpha_are_the_target_s_and_colors_are_srgb(pair: tuple[Tensor, Tensor]) -> None:
    gray = to_gray(pair[0])[:, :, :24, :32]
    target = Image(gray, alpha=gray, bit_depth=16, icc_profile=GRAY_GAMMA_18)
    result = colorize(target, Image(pair[1], alpha=torch.ones(1, 1, 100, 140))).image
    assert result.color.shape == (1, 3, 24, 32)
    assert result.bit_depth == 16
    assert result.alpha is gray
    assert result.icc_profile == srgb_profile()
    # It is as bright as the profile says.
    bright = gray.double() ** 1.8
    shown = torch.where(bright <= 0.0031308, 12.92 * bright, 1.055 * bright ** (1 / 2.4) - 0.055)
    torch.testing.assert_close(to_gray(result.color).double(), shown, rtol=0, atol=1e-4)


def test_start_from_a_field(pair: tuple[Tensor, Tensor], colored: Colorization) -> None:
    """With no iterations, the search can only keep what it starts from, or add to it."""
    again = colorize(to_gray(pair[0]), pair[1], init=colored.field, iterations=0)
    assert again.field is not None
    assert colored.field is not None
    assert (again.field.similarity >= colored.field.similarity - 1e-5).all()


def test_seeds(pair: tuple[Tensor, Tensor], colored: Colorization) -> None:
    again = colorize(to_gray(pair[0]), pair[1])
    assert torch.equal(again.image.color, colored.image.color)
    one, other = (colorize(pair[0], pair[1], method="patchmatch", iterations=0, seed=seed) for seed in (0, 1))
    assert not torch.equal(one.image.color, other.image.color)


class Red(nn.Module):
    """A network that answers with red, and remembers what it was asked."""

    def forward(self, gray: Tensor, reference: Tensor) -> Tensor:
        self.asked = gray, reference
        return torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(-1, -1, *gray.shape[2:])


@pytest.mark.parametrize(("given", "learned", "scale"), [(1, 8, 1), (3, None, 3), (None, None, 1), (None, 30, None)])
def test_a_network_s_colors_get_the_target_s_luminance(
    pair: tuple[Tensor, Tensor], given: int | None, learned: int | None, scale: int | None
) -> None:
    network = Red()
    network.size = learned
    result = colorize(pair[0], pair[1], network=network, scale=given)
    if scale is None:
        scale = -(-max(pair[0].shape[2:]) // 30)
        assert scale > 1
    for asked, image in zip(network.asked, (to_gray(pair[0]), pair[1]), strict=True):
        assert tuple(asked.shape[2:]) == tuple(-(-n // scale) for n in image.shape[2:])
        torch.testing.assert_close(asked[..., 0, 0], image[..., :scale, :scale].mean((2, 3)))
    assert result.field is None
    assert result.image.size == tuple(pair[0].shape[2:])
    red, green, _ = result.image.color[0]
    assert (red >= green - 1e-6).all()
    assert (red > green + 0.1).float().mean() > 0.5
    torch.testing.assert_close(to_gray(result.image.color), to_gray(pair[0]), atol=3e-6, rtol=0)


def test_stages_are_told(pair: tuple[Tensor, Tensor]) -> None:
    told: list[str] = []
    colorize(pair[0], pair[1], progress=told.append)
    colorize(pair[0], pair[1], progress=told.append, network=Red())
    assert told == ["matching", "attending", "coloring", "running the network", "coloring"]


def test_a_reference_without_color_gives_gray(pair: tuple[Tensor, Tensor]) -> None:
    result = colorize(pair[0], to_gray(pair[1]).expand(-1, 3, -1, -1)).image.color
    assert (result.amax(1) - result.amin(1)).max() < 0.01


# ---------------------------------------------------------------------------------------------------------------- alpha


def half_transparent(image: Tensor, alpha: float, garbage: Tensor) -> Image:
    """An image whose right third is nearly transparent, with something else stored there."""
    opacity = torch.ones(1, 1, *image.shape[2:])
    opacity[..., 2 * image.shape[3] // 3 :] = alpha
    return Image(torch.where(opacity < 1, garbage, image), opacity)


@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 1 / 65535, 1 / 255, 5 / 255, 10 / 255])
def test_transparent_pixels_of_the_reference_give_no_colors(
    pair: tuple[Tensor, Tensor], alpha: float, by_network: bool
) -> None:
    gray, network = to_gray(pair[0][..., :48, :64]), load_colorization_network() if by_network else None
    one, other = (
        colorize(gray, half_transparent(pair[1][..., :48, :66], alpha, garbage), network=network, patch_size=5)
        for garbage in (torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1, 1), torch.zeros(1, 1, 1, 1))
    )
    assert torch.equal(one.image.color, other.image.color)
    if one.field is not None:
        assert (one.field.index % 33 < 22).all()


@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 1 / 255, 10 / 255])
def test_transparent_pixels_of_the_target_do_not_change_those_beside_them(
    pair: tuple[Tensor, Tensor], alpha: float, by_network: bool
) -> None:
    gray, network = to_gray(pair[0][..., :48, :63]), load_colorization_network() if by_network else None
    one, other = (
        colorize(half_transparent(gray, alpha, torch.tensor(garbage)), pair[1], network=network, patch_size=5).image
        for garbage in (0.0, 1.0)
    )
    assert torch.equal(one.color[..., :42], other.color[..., :42])


@pytest.mark.parametrize("by_network", [False, True])
def test_opaque_is_as_without_alpha(pair: tuple[Tensor, Tensor], by_network: bool) -> None:
    images = to_gray(pair[0][..., :40, :60]), pair[1][..., :41, :61]
    opaque = [Image(image, torch.ones(1, 1, *image.shape[2:])) for image in images]
    network = load_colorization_network() if by_network else None
    result, expected = (colorize(*two, network=network, patch_size=5).image for two in (opaque, images))
    assert torch.equal(result.color, expected.color)


# --------------------------------------------------------------------------------------------------- small and constant


@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (5, 400)])
def test_strips(pair: tuple[Tensor, Tensor], size: tuple[int, int], by_network: bool) -> None:
    network = load_colorization_network() if by_network else None
    strip = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    for gray, reference in ((to_gray(strip), pair[1][..., :40, :50]), (to_gray(pair[0])[..., :20, :30], strip)):
        result = colorize(gray, reference, network=network).image.color
        assert result.shape[2:] == gray.shape[2:]
        torch.testing.assert_close(to_gray(result), gray, atol=3e-6, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 3), (12, 200)])
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_white_stays_white_and_black_black(pair: tuple[Tensor, Tensor], size: tuple[int, int], level: float) -> None:
    flat = torch.full((1, 1, *size), level)
    for network in (None, load_colorization_network()):
        result = colorize(flat, pair[1][..., :40, :50], network=network).image.color
        torch.testing.assert_close(result, flat.expand(1, 3, *size), atol=1e-5, rtol=0)


def test_an_even_strip_gets_an_even_color_of_a_network(pair: tuple[Tensor, Tensor]) -> None:
    """What is added around a strip is more of it."""
    for size in ((1, 40), (3, 50)):
        result = colorize(
            torch.full((1, 1, *size), 0.5), pair[1][..., :40, :50], network=load_colorization_network()
        ).image.color
        assert (result - result[..., :1, :1]).abs().max() < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": torch.rand(1, 1, 32, 32)}, "reference: it has one channel, gray; expected three"),
        ({"gray": torch.rand(3, 32, 32)}, "color: got shape"),
        (
            {"reference": Image(torch.rand(1, 3, 9, 9), torch.zeros(1, 1, 9, 9))},
            "reference: it is wholly transparent",
        ),
        ({"reference": torch.full((1, 3, 9, 9), torch.nan)}, "reference: it holds NaN or infinity"),
        ({"gray": torch.full((1, 1, 9, 9), torch.nan)}, "gray: it holds NaN or infinity"),
        ({"scale": 0}, "scale: expected an integer of at least 1"),
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
