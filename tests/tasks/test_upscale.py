"""Images enlarged with the detail of their own patches."""

from __future__ import annotations

from typing import Any

import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn.networks.weights import load_superresolution_network
from patchattn.tasks import self_similarity
from patchattn.tasks.images import Image
from patchattn.tasks.resampling import back_project, local_bounds, resize
from patchattn.tasks.self_similarity import HALO, STEPS, SelfSimilarityUpscaler
from patchattn.tasks.upscale import Upscaling, _enlarged, upscale

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_STEP = 1 / 255


def photograph(rows: slice, columns: slice) -> Tensor:
    return torch.from_numpy(skimage.data.coffee()[rows, columns].copy()).movedim(2, 0)[None] / 255


def smaller(image: Tensor, scale: int) -> Tensor:
    """What a file of 8 bits holds of an image made smaller."""
    size = (image.shape[2] // scale, image.shape[3] // scale)
    return resize(image, size).clamp(0, 1).mul(255).round().div(255)


def enlarged(image: Tensor, scale: int = 2, **arguments: Any) -> Tensor:
    return upscale(image, scale, **arguments).image.color


def psnr(image: Tensor, truth: Tensor) -> float:
    return float(-10 * (image - truth)[..., 4:-4, 4:-4].square().mean().log10())


def bicubic(image: Tensor, scale: int) -> Tensor:
    return resize(image, (scale * image.shape[2], scale * image.shape[3])).clamp(0, 1)


SCALES = (2, 3, 4)
"""Scales of one enlargement; those beyond are several of these."""


def stairs(height: int, width: int) -> Tensor:
    """Dark and light bands with sharp edges that slant, whose widths double from left to right."""
    across = torch.arange(width) + 0.35 * torch.arange(height)[:, None]
    return (0.2 + 0.6 * (torch.log2(1 + across / 24).mul(8).floor() % 2)).expand(1, 1, height, width)


@pytest.mark.parametrize(("scale", "gain"), [(2, 3.5), (3, 5.0), (4, 6.0)])
def test_edges_that_recur_are_sharp(scale: int, gain: float) -> None:
    truth = stairs(120, 240)
    low = smaller(truth, scale)
    assert psnr(enlarged(low, scale), truth) > psnr(bicubic(low, scale), truth) + gain


@pytest.mark.parametrize(("scale", "gain"), [(2, 1.8), (3, 1.6), (4, 1.2)])
def test_better_than_interpolation_on_a_photograph(scale: int, gain: float) -> None:
    truth = photograph(slice(60, 252), slice(180, 420))
    low = smaller(truth, scale)
    assert psnr(enlarged(low, scale), truth) > psnr(bicubic(low, scale), truth) + gain


def test_beyond_four_times_one_enlargement_follows_another() -> None:
    truth = stairs(96, 192)
    low = smaller(truth, 8)
    found = enlarged(low, 8)
    assert psnr(found, truth) > psnr(bicubic(low, 8), truth) + 1
    assert (smaller(found, 8) - low).abs().max() < 0.1
    assert upscale(torch.rand(1, 1, 3, 2), 16).image.size == (48, 32)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
def test_what_is_even_stays_so(scale: int, level: float) -> None:
    result = enlarged(torch.full((1, 3, 20, 31), level), scale)
    torch.testing.assert_close(result, torch.full((1, 3, 20 * scale, 31 * scale), level), rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_made_smaller_again_it_is_the_image(scale: int) -> None:
    """But beside the hardest edges, where it would take ringing."""
    image = photograph(slice(100, 163), slice(200, 290))
    missed = (resize(enlarged(image, scale), (63, 90)) - image).abs()
    assert missed.square().mean().sqrt() < ONE_STEP
    assert (missed < ONE_STEP).float().mean() > 0.95


def test_colors_are_those_of_interpolation() -> None:
    """The detail is gray: the same for all channels."""
    image = photograph(slice(100, 140), slice(200, 260))
    detail = _enlarged(image, 2, settings_of(), str) - resize(image, (80, 120))
    torch.testing.assert_close(detail, detail[:, :1].expand_as(detail), rtol=0, atol=1e-6)
    gray = enlarged(image[:, :1])
    assert gray.shape == (1, 1, 80, 120)
    as_color = enlarged(image[:, :1].expand(-1, 3, -1, -1))
    torch.testing.assert_close(as_color, gray.expand(-1, 3, -1, -1), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------- bands


def settings_of(**changed: Any) -> SelfSimilarityUpscaler:
    return SelfSimilarityUpscaler(**{"patch_size": 5, "k": 3, "temperature": 0.1, "seed": 0, **changed})


@pytest.mark.needs("cpu")
@pytest.mark.parametrize("patch_size", [3, 5])
def test_bands_have_no_seams(patch_size: int) -> None:
    """Band by band, the guided search and the votes give what they give of the whole image."""
    low = photograph(slice(40, 111), slice(180, 220))[:, :1]
    assert low.numel() > 1024, "too large for exact search"
    whole = settings_of(patch_size=patch_size).enlarge(low, 2, str)
    bands = settings_of(patch_size=patch_size, band=1).enlarge(low, 2, str)
    assert whole.shape[2] > 4 * HALO
    torch.testing.assert_close(bands, whole, rtol=0, atol=ONE_STEP)
    assert (bands - whole).abs().mean() < 1e-6


@pytest.mark.parametrize("patch_size", [3, 5, 9])
def test_bands_of_an_exact_search_are_the_whole(patch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the bands are: the halo holds their patches and votes."""
    low = photograph(slice(40, 60), slice(180, 196))[:, :1]
    assert low.numel() < 1024, "small enough for exact search"
    whole = settings_of(patch_size=patch_size).enlarge(low, 2, str)
    monkeypatch.setattr(self_similarity, "HALO", 4)
    bands = settings_of(patch_size=patch_size, band=1).enlarge(low, 2, str)
    torch.testing.assert_close(bands, whole, rtol=0, atol=1e-5)


@settings(max_examples=100)
@given(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 50_000))
def test_bands_cover_everything_once(height: int, width: int, size: int) -> None:
    bands = list(self_similarity._bands(height, width, size))
    assert [row for low, high in bands for row in range(low, high)] == list(range(height))
    assert all(low % HALO == 0 for low, _ in bands)
    assert all((high - low) * width <= max(size, HALO * width) for low, high in bands)


def test_votes_of_every_second_patch_leave_no_chessboard() -> None:
    """In smooth areas; where an image is busy, such a pattern may be its own."""
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(15), indexing="ij")
    chessboard = (1 - 2 * ((rows + columns) % 2)).float().expand(1, 1, -1, -1)
    slope = (rows + columns).float().expand(1, 1, -1, -1) / 30
    cleaned = self_similarity._without_chessboard(slope + 0.02 * chessboard)
    torch.testing.assert_close(cleaned[..., 1:-1, 1:-1], slope[..., 1:-1, 1:-1])


# ------------------------------------------------------------------------------------------------- what an image holds


def test_the_rest_of_the_image_is_passed_on() -> None:
    image = Image(torch.rand(1, 3, 9, 12), torch.rand(1, 1, 9, 12), bit_depth=16, icc_profile=b"profile")
    result = upscale(image, 3)
    assert isinstance(result, Upscaling)
    assert (result.image.size, result.image.bit_depth) == ((27, 36), 16)
    assert result.image.icc_profile == b"profile"
    assert result.image.alpha is not None
    assert result.image.alpha.shape == (1, 1, 27, 36)
    assert result.seconds > 0


def test_what_is_transparent_has_no_part_in_the_colors_beside_it() -> None:
    alpha = torch.ones(1, 1, 24, 30)
    alpha[..., 15:] = 0
    light = torch.full((1, 3, 24, 30), 0.8)
    hidden = torch.where(alpha > 0, light, torch.rand(1, 3, 24, 30))
    result = upscale(Image(hidden, alpha)).image
    torch.testing.assert_close(result.color, torch.full((1, 3, 48, 60), 0.8), rtol=0, atol=1e-5)
    assert result.alpha is not None
    assert result.alpha[..., :26].min() > 0.99
    assert result.alpha[..., 34:].max() < 0.01
    unseen = upscale(Image(hidden, torch.zeros_like(alpha))).image.color
    torch.testing.assert_close(unseen, enlarged(hidden))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_precision(dtype: torch.dtype) -> None:
    image = photograph(slice(100, 120), slice(200, 230))
    result = enlarged(image.to(dtype))
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), enlarged(image.to(dtype).float()), rtol=0, atol=0.01)


@settings(max_examples=25)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    scale=st.sampled_from(SCALES),
    channels=st.sampled_from([1, 3]),
    patch_size=st.sampled_from([1, 3, 7]),
    seed=st.integers(0, 2**31),
)
def test_any_size(height: int, width: int, scale: int, channels: int, patch_size: int, seed: int) -> None:
    image = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed))
    result = enlarged(image, scale, patch_size=patch_size, seed=seed)
    assert result.shape == (1, channels, scale * height, scale * width)
    assert result.min() >= 0
    assert result.max() <= 1


def test_inference_mode() -> None:
    image = photograph(slice(100, 140), slice(200, 260))
    with torch.inference_mode():
        result = enlarged(image.clone())
    assert torch.equal(result, enlarged(image))


def test_one_pixel() -> None:
    torch.testing.assert_close(enlarged(torch.full((1, 3, 1, 1), 0.3), 4), torch.full((1, 3, 4, 4), 0.3))


# ----------------------------------------------------------------------------------------------------------- the others


def test_steps_are_told() -> None:
    for scale in SCALES:
        told: list[str] = []
        upscale(torch.rand(1, 1, 12, 12), scale, progress=told.append)
        assert told == [f"step {step} of {STEPS[scale]}" for step in range(1, STEPS[scale] + 1)]


def test_what_is_flat_is_interpolated_and_nothing_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the image is a soft slope, in which no detail is missing; the other half gets detail."""
    image = photograph(slice(100, 148), slice(200, 260))[:, :1]
    image[..., :30] = torch.linspace(0.4, 0.42, 30)
    asked: list[torch.Tensor] = []
    attend = self_similarity.patch_attention

    def spy(*arguments: Any, **options: Any) -> torch.Tensor:
        asked.append(options["query_mask"])
        return attend(*arguments, **options)

    monkeypatch.setattr(self_similarity, "patch_attention", spy)
    detail = settings_of().enlarge(image, 2, str) - resize(image, (96, 120))
    for mask in asked:
        width = mask.shape[2]
        assert not mask[..., : int(width * 0.4)].any()
        share = mask[..., int(width * 0.6) :].float().mean()
        assert 0.2 < share <= 0.51  # every second one of most
    assert detail[..., :44].abs().max() < 1e-3
    assert detail[..., 76:].abs().max() > 0.05


@pytest.mark.needs("cpu")
def test_the_result_depends_on_nothing_but_the_arguments() -> None:
    image = photograph(slice(100, 150), slice(200, 260))
    given = image.clone()
    first = enlarged(image, seed=1)
    torch.set_num_threads(2)
    try:
        again = enlarged(image, seed=1)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(first, again)
    assert torch.equal(image, given)


class Doubling:
    """A network that repeats every pixel."""

    scale = 2

    def enlarge(self, image: Tensor) -> Tensor:
        assert image.shape[1] == 3
        return image.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_enlarges_instead(channels: int) -> None:
    ramp = torch.linspace(0.2, 0.8, 7)[:, None] + torch.linspace(0, 0.1, 9)
    told: list[str] = []
    result = upscale(ramp.expand(1, channels, 7, 9), 2, network=Doubling(), progress=told.append).image
    assert result.color.shape == (1, channels, 14, 18)
    torch.testing.assert_close(resize(result.color, (7, 9)), ramp.expand(1, channels, 7, 9), rtol=0, atol=2 * ONE_STEP)
    # Its blocks are still there: patches would have made a ramp of them.
    steps = result.color.diff(dim=2)
    assert steps[:, :, 1::2].mean() > 2 * steps[:, :, ::2].mean()
    assert told == ["running the network"]


class Cropping(Doubling):
    def enlarge(self, image: Tensor) -> Tensor:
        return super().enlarge(image)[..., :-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 5}, r"scale: got 5; allowed are 2, 3, 4, 8 and 16"),
        ({"scale": 2.0}, r"scale: got 2\.0; allowed are 2, 3, 4, 8 and 16"),
        ({"patch_size": 4}, r"patch_size: expected an odd number \(a patch has a center\), got 4"),
        ({"patch_size": 0}, r"patch_size: expected an integer of at least 1"),
        ({"k": 0}, r"k: expected an integer of at least 1"),
        ({"temperature": 0.0}, r"temperature: expected a number above 0, got 0\.0"),
        ({"seed": -1}, r"seed: expected an integer of at least 0"),
        ({"scale": 3, "network": Doubling()}, r"scale: got 3, and the network enlarges 2 times; expected the same"),
        (
            {"network": Cropping()},
            r"network: it enlarged to shape \(1, 3, 16, 23\); expected \(1, 3, 16, 24\)",
        ),
        ({"image": torch.rand(3, 8, 12)}, r"color: got shape \(3, 8, 12\)"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upscale(**{"image": torch.rand(1, 3, 8, 12), **arguments})


class Ringing(Doubling):
    """A network that is not exact on flat areas and rings at edges."""

    def enlarge(self, image: Tensor) -> Tensor:
        return 0.97 * resize(image, (2 * image.shape[2], 2 * image.shape[3])) + 0.01


@pytest.mark.parametrize("level", [0.0, 1 / 255, 0.3, 0.5, 1.0])
def test_a_network_keeps_what_is_even(level: float) -> None:
    image = torch.full((1, 3, 9, 14), level)
    torch.testing.assert_close(enlarged(image, network=Ringing()), image[..., :1, :1].expand(1, 3, 18, 28))


# -------------------------------------------------------------------------------------------------------------- ringing


def drawing(name: str) -> Tensor:
    """Hard edges between 60 and 180 of 255."""
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(30), indexing="ij")
    shapes = {
        "step": columns >= 15,
        "step across": rows >= 11,
        "slanting step": 2 * rows + columns >= 40,
        "corner": (columns >= 15) & (rows >= 11),
        "line": columns == 14,
        "slanting line": rows == columns,
        "grid": (columns % 4 == 0) | (rows % 4 == 0),
        "checker": (rows + columns) % 2 == 0,
        "coarse checker": (rows // 3 + columns // 3) % 2 == 0,
        "dot": (rows == 12) & (columns == 15),
    }
    return torch.where(shapes[name], 180 / 255, 60 / 255)[None, None]


NETWORKS = {scale: load_superresolution_network(scale=scale, cross_scale="psal") for scale in SCALES}
DRAWINGS = (
    "step", "step across", "slanting step", "corner", "line", "slanting line", "grid", "checker", "coarse checker",
    "dot",
)  # fmt: skip


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", DRAWINGS)
def test_hard_edges_do_not_ring(name: str, scale: int) -> None:
    result = enlarged(drawing(name), scale)
    assert result.min() * 255 > 59.99
    assert result.max() * 255 < 180.01


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["slanting step", "grid"])
def test_hard_edges_do_not_ring_by_a_network(name: str, scale: int) -> None:
    result = enlarged(drawing(name), scale, network=NETWORKS[scale])
    assert result.min() * 255 > 59.99
    assert result.max() * 255 < 180.01


def test_a_step_stays_sharp() -> None:
    result = enlarged(drawing("step"), 4)[0, 0, 40] * 255
    assert ((result > 70) & (result < 170)).sum() <= 4, "more than one pixel of the low image"


def test_bounds_of_a_step_are_its_levels_and_a_line_may_become_brighter_up_to_what_is_near() -> None:
    step = local_bounds(drawing("step"), (48, 60))
    assert step.lower.min() == drawing("step").min()
    assert step.upper.max() == drawing("step").max()
    line = drawing("line").clone()
    line[..., 2, 18] = 1
    bounds = local_bounds(line, (24, 30))
    assert bounds.upper[0, 0, 5, 14] == pytest.approx((180 + 0.5 * 120) / 255)  # a brighter dot is near
    assert bounds.upper[0, 0, 20, 14] == pytest.approx(180 / 255)  # nothing is brighter
    assert bounds.upper[0, 0, 5, 11] == pytest.approx(60 / 255)  # beside the line
    assert bounds.lower.min() == pytest.approx(60 / 255)


@pytest.mark.parametrize(("width", "brighter"), [(1, True), (2, True), (3, False)])
def test_two_pixels_are_a_thin_line_and_three_a_plateau(width: int, brighter: bool) -> None:
    image = torch.full((1, 1, 24, 30), 60 / 255)
    image[..., 12 : 12 + width] = 180 / 255
    image[..., 0, 20] = 1
    upper = local_bounds(image, (24, 30)).upper[0, 0, 8, 12]
    assert upper == pytest.approx((240 if brighter else 180) / 255)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3), (5, 40)])
@pytest.mark.parametrize("scale", SCALES)
def test_strips_by_a_network(size: tuple[int, int], scale: int) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    result = enlarged(image, scale, network=NETWORKS[scale])
    assert result.shape == (1, 3, scale * size[0], scale * size[1])
    assert (resize(result, size) - image).square().mean().sqrt() < 0.1
    white = enlarged(torch.ones(1, 3, *size), scale, network=NETWORKS[scale])
    assert torch.equal(white, torch.ones_like(white))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["color", "alpha"])
def test_what_is_no_number_is_refused(where: str, value: float) -> None:
    planes = {"color": torch.rand(1, 3, 6, 6), "alpha": torch.rand(1, 1, 6, 6)}
    planes[where][..., 2, 3] = value
    with pytest.raises(ValueError, match=r"image: it holds NaN or infinity; expected numbers in \[0, 1\]"):
        upscale(Image(**planes))


# ----------------------------------------------------------------------------------------------------------- resampling


def test_resampling_is_keys_kernel() -> None:
    """One pixel of light spreads as Keys' kernel does (a = -1/2), and twice as wide where pixels become fewer."""
    line = torch.zeros(1, 1, 1, 9, dtype=torch.float64)
    line[..., 4] = 1

    def keys(x: float) -> float:
        x = abs(x)
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return near if x <= 1 else far if x < 2 else 0

    larger = [keys((n + 0.5) / 2 - 0.5 - 4) for n in range(18)]
    torch.testing.assert_close(resize(line, (1, 18))[0, 0, 0], torch.tensor(larger, dtype=torch.float64))
    row = torch.zeros(1, 1, 1, 24, dtype=torch.float64)
    row[..., 12] = 1
    small = [keys((12.5 - 2 * (n + 0.5)) / 2) / 2 for n in range(12)]
    torch.testing.assert_close(resize(row, (1, 12))[0, 0, 0], torch.tensor(small, dtype=torch.float64))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "new_size"),
    [((18, 1), (9, 1)), ((9, 1), (18, 1)), ((40, 30), (20, 1)), ((7, 2), (5, 1)), ((4, 4), (1, 1))],
)
def test_strips_are_resampled_alike_in_both_directions(
    size: tuple[int, int], new_size: tuple[int, int], channels: int
) -> None:
    image = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    across = resize(image.transpose(2, 3).contiguous(), (new_size[1], new_size[0])).transpose(2, 3)
    torch.testing.assert_close(resize(image, new_size), across)


def test_back_projection_keeps_what_is_right() -> None:
    high = photograph(slice(0, 40), slice(0, 60))
    low = resize(high, (20, 30))
    torch.testing.assert_close(back_project(high, low), high, rtol=0, atol=1e-6)
