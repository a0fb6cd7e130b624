"""Colors under transparency: what is hardly seen has no part in what is seen."""

from __future__ import annotations

from functools import cache

import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from patchattn.networks.superresolution import SuperResolutionNetwork
from patchattn.networks.weights import load_superresolution_network
from patchattn.tasks.alpha import check_visible, resize_with_alpha, visible_color
from patchattn.tasks.images import Image
from patchattn.tasks.resampling import resize
from patchattn.tasks.upscale import upscale

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = (24, 28)
BACKGROUNDS = (0.0, 0.5, 1.0)


def photograph() -> Tensor:
    return torch.from_numpy(skimage.data.coffee()[110 : 110 + SIZE[0], 210 : 210 + SIZE[1]]).movedim(2, 0)[None] / 255


def noise(seed: int = 0) -> Tensor:
    return torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def distance() -> Tensor:
    """From the middle, in pixels."""
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return ((rows - 11.5) ** 2 + (columns - 13.5) ** 2).sqrt()[None, None]


def strokes() -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return ((columns % 5 == 2) | (rows == columns))[None, None]


def images() -> dict[str, Image]:
    disc, soft = distance() < 8, ((11 - distance()) / 6).clamp(0, 1)
    white, black = torch.ones(1, 3, *SIZE), torch.zeros(1, 3, *SIZE)
    icon, shadow = torch.where(disc, white, black), torch.maximum(disc.float(), 0.5 * soft.roll((3, 3), (2, 3)))
    return {
        "white disc, black at 1 of 255": Image(icon, torch.where(disc, 1.0, 1 / 255)),
        "white disc, black at 8 of 255": Image(icon, torch.where(disc, 1.0, 8 / 255)),
        "black disc, white at 0": Image(1 - icon, disc.float()),
        "photograph, noise at 1 of 255": Image(torch.where(disc, photograph(), noise()), torch.where(disc, 1, 1 / 255)),
        "photograph, noise at 30 of 255": Image(torch.where(disc, photograph(), noise()), torch.where(disc, 1, 0.12)),
        "soft edge": Image(torch.where(soft > 0, photograph(), noise()), soft),
        "soft shadow": Image(icon, shadow),
        "16 bits": Image(icon, torch.where(disc, 1.0, 1 / 65535), bit_depth=16),
        "gray": Image(photograph()[:, :1], soft),
        "alpha is noise": Image(photograph(), noise()[:, :1].clamp(0.2, 1)),
        "thin strokes": Image(torch.where(strokes(), white, black), torch.where(strokes(), 1.0, 2 / 255)),
        "nothing is opaque": Image(icon, torch.where(disc, 0.1, 0.001)),
    }


def seen(image: Image, background: float) -> Tensor:
    assert image.alpha is not None
    return image.color * image.alpha + background * (1 - image.alpha)


@cache
def network(scale: int) -> SuperResolutionNetwork:
    return load_superresolution_network(scale=scale, cross_scale="psal")


def enlarged(image: Image, scale: int, by_network: bool) -> Image:
    return upscale(image, scale, network=network(scale) if by_network else None).image


@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_white_icon_has_no_dark_rim(scale: int, by_network: bool) -> None:
    for name in ("white disc, black at 1 of 255", "16 bits", "thin strokes"):
        image = images()[name]
        result = enlarged(image, scale, by_network)
        assert seen(result, 1.0).min() > seen(image, 1.0).min() - 0.5 / 255, name


@pytest.mark.parametrize("name", list(images()))
@pytest.mark.parametrize(("scale", "by_network"), [(2, False), (3, False), (4, False), (4, True)])
def test_no_background_shows_a_rim(name: str, scale: int, by_network: bool) -> None:
    """Nothing is seen that exceeds what is seen nearby in the low image."""
    image = images()[name]
    result = enlarged(image, scale, by_network)
    assert result.color.min() >= 0
    assert result.color.max() <= 1
    for background in BACKGROUNDS:
        low, high = seen(image, background), seen(result, background)
        most, least = (F.interpolate(sign * F.max_pool2d(sign * low, 11, 1, 5), scale_factor=scale) for sign in (1, -1))
        assert (high - most).max() < 0.5 / 255
        assert (least - high).max() < 0.5 / 255


@pytest.mark.parametrize("name", ["soft edge", "gray", "photograph, noise at 1 of 255", "soft shadow"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_made_smaller_again_it_is_the_image_as_it_is_seen(name: str, scale: int) -> None:
    image = images()[name]
    result = enlarged(image, scale, by_network=False)
    for background in BACKGROUNDS:
        low, high = seen(image, background), seen(result, background)
        plain = seen(Image(resize(image.color, result.size), resize(image.alpha, result.size)), background)  # type: ignore[arg-type]
        missed, missed_by_interpolation = ((resize(shown, SIZE) - low).square().mean() for shown in (high, plain))
        assert missed < missed_by_interpolation
        if image.alpha is not None and name in ("soft edge", "gray"):
            assert missed.sqrt() < 1 / 255


@pytest.mark.parametrize("alpha", [0.0, 1 / 65535, 1 / 255, 4 / 255, 10 / 255])
def test_what_is_stored_under_low_alpha_does_not_matter(alpha: float) -> None:
    disc = distance() < 8
    opacity = torch.where(disc, 1.0, alpha)
    one, other = (enlarged(Image(torch.where(disc, photograph(), noise(n)), opacity), 2, False) for n in (0, 1))
    for background in BACKGROUNDS:
        difference = (seen(one, background) - seen(other, background)).abs().max()
        # What is seen of it anyway, and no more.
        assert difference < 1.5 * alpha + 0.5 / 255


@pytest.mark.parametrize("by_network", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_opaque_is_as_without_alpha(scale: int, by_network: bool) -> None:
    image = Image(photograph())
    opaque = enlarged(Image(photograph(), torch.ones(1, 1, *SIZE)), scale, by_network)
    assert torch.equal(opaque.color, enlarged(image, scale, by_network).color)
    assert opaque.alpha is not None
    assert torch.equal(opaque.alpha, torch.ones_like(opaque.alpha))


def test_hardly_transparent_is_nearly_as_without_alpha() -> None:
    alpha = torch.ones(1, 1, *SIZE)
    alpha[..., 3, 4] = 254 / 255
    difference = enlarged(Image(photograph(), alpha), 2, False).color - enlarged(Image(photograph()), 2, False).color
    assert difference.abs().max() < 1 / 255


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5])
def test_even_alpha_stays_even(alpha: float) -> None:
    result = enlarged(Image(photograph(), torch.full((1, 1, *SIZE), alpha)), 3, False)
    torch.testing.assert_close(result.alpha, torch.full((1, 1, 72, 84), alpha))
    expected = enlarged(Image(photograph()), 3, False).color
    torch.testing.assert_close(result.color, expected, rtol=0, atol=2 / 255)


# ------------------------------------------------------------------------------------------------------------- resizing


@pytest.mark.parametrize("size", [(12, 14), (7, 9), (1, 1), (24, 28), (40, 50)])
@pytest.mark.parametrize("name", list(images()))
def test_resized_as_it_is_seen(name: str, size: tuple[int, int]) -> None:
    image = images()[name]
    color, alpha = resize_with_alpha(image.color, image.alpha, size)
    assert alpha is not None
    assert color.min() >= 0
    assert color.max() <= 1
    black = resize(seen(image, 0.0), size).clamp(min=0)
    torch.testing.assert_close(color * alpha, torch.minimum(black, alpha), rtol=0, atol=1e-5)


@pytest.mark.parametrize("alpha", [None, 1.0, 0.0])
def test_resized_without_alpha_to_weigh_by(alpha: float | None) -> None:
    opacity = None if alpha is None else torch.full((1, 1, *SIZE), alpha)
    color, new_alpha = resize_with_alpha(photograph(), opacity, (12, 14))
    assert torch.equal(color, resize(photograph(), (12, 14)).clamp(0, 1))
    if alpha is None:
        assert new_alpha is None
    else:
        assert new_alpha is not None
        assert torch.equal(new_alpha, torch.full((1, 1, 12, 14), alpha))


def test_visible_colors_are_as_they_are_and_others_continue_them() -> None:
    disc = distance() < 8
    image = Image(torch.where(disc, 0.7, noise()), torch.where(disc, 1.0, 0.02))
    torch.testing.assert_close(visible_color(image), torch.full((1, 3, *SIZE), 0.7), rtol=0, atol=1e-5)
    assert torch.equal(visible_color(Image(noise())), noise())
    assert torch.equal(visible_color(Image(noise(), torch.zeros(1, 1, *SIZE))), noise())
    faint = Image(noise(), torch.full((1, 1, *SIZE), 0.01))
    assert torch.equal(visible_color(faint), noise())


def test_a_source_of_colors_must_be_seen() -> None:
    with pytest.raises(ValueError, match="reference: it is wholly transparent; expected visible colors to take"):
        check_visible("reference", Image(noise(), torch.zeros(1, 1, *SIZE)))
    check_visible("reference", Image(noise(), torch.full((1, 1, *SIZE), 1 / 255)))
    check_visible("reference", Image(noise()))
