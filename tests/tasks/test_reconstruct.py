"""An image rebuilt from another: quality on photographs, and images that differ in every way they can."""

from __future__ import annotations

import math

import pytest
import skimage.data
import torch
from torch import Tensor

from patchattn.tasks.codecs.icc import SRGB_PRIMARIES, Curve, rgb_profile
from patchattn.tasks.color_profiles import to_profile
from patchattn.tasks.images import Image
from patchattn.tasks.reconstruct import reconstruct

PROFILES = [rgb_profile(SRGB_PRIMARIES, Curve(gamma), f"gamma {gamma}") for gamma in (2.2, 1.8)]


def colors(array: object) -> Tensor:
    tensor = torch.as_tensor(array).float() / 255
    return tensor.permute(2, 0, 1)[None].contiguous() if tensor.ndim == 3 else tensor[None, None]


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    """Two views of the same motorcycle, cropped."""
    left, right, _ = skimage.data.stereo_motorcycle()
    return colors(left[200:248, 300:364]), colors(right[196:252, 270:370])


def test_real_photographs(pair: tuple[Tensor, Tensor]) -> None:
    target, reference = pair
    plain = reconstruct(target, reference, method="exact")
    voted = reconstruct(target, reference, method="exact", aggregate=True)
    assert plain.image.color.shape == target.shape
    assert voted.mse < plain.mse < 0.006
    # Far better than the nearest thing without attention: the other image at the same place.
    assert plain.mse < 0.5 * float((reference[:, :, 4:52, 30:94] - target).square().mean())


def test_numbers_are_what_they_say(pair: tuple[Tensor, Tensor]) -> None:
    result = reconstruct(*pair, k=1, method="exact")
    mse = float((result.image.color - pair[0]).square().mean())
    assert result.mse == pytest.approx(mse, rel=1e-5)
    assert result.psnr == pytest.approx(-10 * math.log10(mse), rel=1e-4)
    assert result.seconds > 0
    assert result.field.index.shape == (1, 1, 1, 48, 64)
    assert tuple(result.field.key_shape) == (56, 100)


def test_one_match_copies_its_pixel(pair: tuple[Tensor, Tensor]) -> None:
    target, reference = pair
    result = reconstruct(target, reference, k=1, method="exact")
    copied = reference.flatten(2)[:, :, result.field.index[0, 0, 0].long()]
    torch.testing.assert_close(result.image.color, copied, rtol=0, atol=1e-6)


def test_same_image_is_perfect(pair: tuple[Tensor, Tensor]) -> None:
    result = reconstruct(pair[0], pair[0], k=1, method="exact")
    assert result.mse == 0
    assert result.psnr == math.inf


def test_search_is_near_exact(pair: tuple[Tensor, Tensor]) -> None:
    exact = reconstruct(*pair, method="exact")
    found = reconstruct(*pair, method="patchmatch", iterations=10)
    assert found.mse < 1.5 * exact.mse
    again = reconstruct(*pair, method="patchmatch", iterations=10)
    assert torch.equal(found.image.color, again.image.color)


def test_gray_and_gray_stays_gray(pair: tuple[Tensor, Tensor]) -> None:
    target, reference = (image.mean(1, keepdim=True) for image in pair)
    result = reconstruct(target, reference, method="exact")
    assert result.image.color.shape == (1, 1, 48, 64)
    assert result.mse < 0.006


def test_gray_target_is_compared_in_rgb(pair: tuple[Tensor, Tensor]) -> None:
    gray = pair[0].mean(1, keepdim=True)
    result = reconstruct(gray, pair[1], method="exact")
    expected = reconstruct(gray.repeat(1, 3, 1, 1), pair[1], method="exact")
    assert torch.equal(result.image.color, expected.image.color)
    assert result.mse == expected.mse


def test_gray_reference_gives_gray_values(pair: tuple[Tensor, Tensor]) -> None:
    result = reconstruct(pair[0], pair[1].mean(1, keepdim=True), method="exact").image.color
    assert result.shape == pair[0].shape
    assert torch.equal(result[:, 0], result[:, 2])


def test_depth_and_alpha_are_the_targets_and_profile_the_references(pair: tuple[Tensor, Tensor]) -> None:
    alpha = torch.linspace(0.2, 1, 48 * 64).view(1, 1, 48, 64)
    target = Image(pair[0], alpha, 16, PROFILES[0])
    reference = Image(pair[1], pair[1][:, :1].clamp(min=0.2), 8, PROFILES[1])
    result = reconstruct(target, reference, method="exact")
    assert result.image.bit_depth == 16
    assert result.image.alpha is alpha
    assert result.image.icc_profile == PROFILES[1]
    # Neither depth nor alpha of what can be seen changes the colors; the target's are those that it shows.
    same = reconstruct(to_profile(Image(pair[0], icc_profile=PROFILES[0]), PROFILES[1]).color, pair[1], method="exact")
    assert torch.equal(result.image.color, same.image.color)


@pytest.mark.parametrize("alpha", [0.0, 1 / 65535, 1 / 255, 5 / 255, 10 / 255])
def test_what_is_hardly_seen_has_no_part(pair: tuple[Tensor, Tensor], alpha: float) -> None:
    """Neither in the target, whose garbage is not looked for, nor in the reference, whose garbage is not copied."""
    results = []
    pair = pair[0][..., :34, :56], pair[1][..., :34, :60]
    for garbage in (0.0, 1.0):
        faint = [torch.ones(1, 1, *image.shape[2:]) for image in pair]
        for opacity in faint:
            opacity[..., 20:30, 30:50] = alpha
        stored = [torch.where(a == alpha, garbage, image) for a, image in zip(faint, pair, strict=True)]
        target, reference = (Image(c, a) for c, a in zip(stored, faint, strict=True))
        results.append(reconstruct(target, reference, method="exact", aggregate=True))
    assert torch.equal(results[0].image.color, results[1].image.color)
    assert results[0].mse == results[1].mse < 0.01
    rows, columns = results[0].field.index // 60, results[0].field.index % 60
    assert not ((rows >= 20) & (rows < 30) & (columns >= 30) & (columns < 50)).any()


def test_opaque_is_as_without_alpha(pair: tuple[Tensor, Tensor]) -> None:
    opaque = [Image(image, torch.ones(1, 1, *image.shape[2:])) for image in pair]
    result, expected = reconstruct(*opaque, method="exact"), reconstruct(*pair, method="exact")
    assert torch.equal(result.image.color, expected.image.color)
    assert result.mse == expected.mse


def test_a_target_that_is_not_seen_is_rebuilt_as_it_is_stored(pair: tuple[Tensor, Tensor]) -> None:
    result = reconstruct(Image(pair[0], torch.zeros(1, 1, 48, 64)), pair[1], method="exact")
    assert torch.equal(result.image.color, reconstruct(*pair, method="exact").image.color)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (3, 200)])
def test_small_images_and_strips(size: tuple[int, int]) -> None:
    strip, other = torch.rand(1, 3, *size), torch.rand(1, 3, 12, 15)
    assert reconstruct(strip, other).image.size == size
    assert reconstruct(other, strip, k=1).image.size == (12, 15)
    assert reconstruct(strip, strip, k=1).mse == 0


def test_a_constant_image_stays_constant() -> None:
    result = reconstruct(torch.full((1, 3, 12, 15), 0.3), torch.full((1, 3, 20, 9), 0.7)).image.color
    torch.testing.assert_close(result, torch.full((1, 3, 12, 15), 0.7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"reference": Image(torch.rand(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))},
            "reference: it is wholly transparent",
        ),
        ({"reference": torch.full((1, 3, 8, 8), torch.nan)}, "reference: it holds NaN or infinity"),
        ({"target": torch.full((1, 3, 8, 8), torch.inf)}, "target: it holds NaN or infinity"),
        ({"reference": torch.rand(1, 3, 1, 2)}, "k: got 3, but the reference has only 2 pixels"),
    ],
)
def test_images_that_cannot_be_worked_on(changes: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"target": torch.rand(1, 3, 8, 8), "reference": torch.rand(1, 3, 8, 8)}
    with pytest.raises(ValueError, match=message):
        reconstruct(**(arguments | changes))  # type: ignore[arg-type]


def test_temperature_and_similarity_matter(pair: tuple[Tensor, Tensor]) -> None:
    results = [
        reconstruct(*pair, method="exact", **options).image.color
        for options in ({}, {"temperature": 100.0}, {"similarity": "l1"}, {"patch_size": 3})
    ]
    assert all(not torch.equal(results[0], other) for other in results[1:])


def test_stages_are_told(pair: tuple[Tensor, Tensor]) -> None:
    stages: list[str] = []
    reconstruct(*pair, k=1, method="exact", progress=stages.append)
    assert stages == ["matching", "attending", "measuring"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 6}, "patch_size"),
        ({"patch_size": -1}, "patch_size"),
        ({"k": 0}, "k"),
        ({"k": 10_000}, "k"),
        ({"method": "magic"}, "method"),
        ({"similarity": "taste"}, "similarity"),
        ({"iterations": -1}, "iterations"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_wrong_options(pair: tuple[Tensor, Tensor], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{message}\b"):
        reconstruct(*pair, **options)


def test_no_image() -> None:
    with pytest.raises(ValueError, match=r"color: got shape \(3, 8, 8\)"):
        reconstruct(torch.rand(3, 8, 8), torch.rand(1, 3, 8, 8))
