"""Holes completed from the image itself."""

from __future__ import annotations

from typing import Any

import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn.tasks.bounding_boxes import bounding_boxes
from patchattn.tasks.images import Image
from patchattn.tasks.inpaint import QUALITIES, Inpainting, inpaint
from patchattn.tasks.membrane import membrane_interpolation
from patchattn.tasks.pyramid import dilated, image_pyramid
from patchattn.tasks.thin_holes import thin_part, tiles_of

pytestmark = pytest.mark.usefixtures("one_thread")


def rectangle(height: int, width: int, rows: slice, columns: slice) -> Tensor:
    hole = torch.zeros(height, width, dtype=torch.bool)
    hole[rows, columns] = True
    return hole


def photograph(rows: slice, columns: slice) -> Tensor:
    return torch.from_numpy(skimage.data.coffee()[rows, columns].copy()).movedim(2, 0)[None] / 255


def tiles(height: int, width: int) -> Tensor:
    """A pattern of 6 x 8 pixels, again and again."""
    pattern = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    return pattern.repeat(1, 1, -(-height // 6), -(-width // 8))[:, :, :height, :width]


@pytest.mark.parametrize(
    "hole",
    [
        rectangle(75, 90, slice(30, 48), slice(40, 61)),
        rectangle(75, 90, slice(0, 15), slice(70, 90)),
        rectangle(75, 90, slice(30, 31), slice(0, 90)),
    ],
    ids=["inside", "in-a-corner", "from-edge-to-edge"],
)
def test_what_repeats_is_restored(hole: Tensor) -> None:
    image = tiles(75, 90)
    result = inpaint(image, hole, levels=1)
    torch.testing.assert_close(result.image.color, image, rtol=0, atol=0.02)


def test_known_pixels_stay_as_they_were() -> None:
    image = Image(torch.rand(1, 3, 40, 50), torch.rand(1, 1, 40, 50), bit_depth=16, icc_profile=b"profile")
    hole = rectangle(40, 50, slice(10, 20), slice(15, 30))
    result = inpaint(image, hole, quality="fast").image
    assert torch.equal(result.color[..., ~hole], image.color[..., ~hole])
    assert result.alpha is not None
    assert image.alpha is not None
    assert torch.equal(result.alpha[..., ~hole], image.alpha[..., ~hole])
    assert not torch.equal(result.alpha[..., hole], image.alpha[..., hole])
    assert (result.bit_depth, result.icc_profile) == (16, b"profile")


@pytest.mark.parametrize("alpha", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_transparent_pixels_are_the_hole_and_opaque_afterwards(alpha: float) -> None:
    color, hole = tiles(60, 60), rectangle(60, 60, slice(20, 32), slice(20, 40))
    image = Image(torch.where(hole, 0, color), torch.where(hole, alpha, 1.0)[None, None])
    result = inpaint(image, levels=1).image
    assert result.alpha is None
    torch.testing.assert_close(result.color, color, rtol=0, atol=0.02)


@pytest.mark.parametrize("faintest", [0.5, 0.1, 0.004, 1e-4])
@pytest.mark.parametrize("patch_size", [5, 11])
@pytest.mark.parametrize("in_alpha", [False, True], ids=["mask", "eraser"])
def test_nothing_is_left_of_what_is_partly_covered(faintest: float, patch_size: int, in_alpha: bool) -> None:
    """A red disc with a soft edge on gray: all that holds any red is filled, and nothing red is copied."""
    across, down = torch.arange(90.0) - 44, torch.arange(80.0)[:, None] - 40
    red = ((14 - (across.square() + down.square()).sqrt()) / 6 + 0.5).clamp(0, 1)
    red = torch.where((red > 0) & (red < faintest), faintest, red)
    gray = 0.4 + 0.2 * torch.rand(1, 1, 80, 90, generator=torch.Generator().manual_seed(0)).expand(1, 3, 80, 90)
    image = torch.lerp(gray, torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand_as(gray), red)
    if in_alpha:
        result = inpaint(Image(image, (1 - red)[None, None]), patch_size=patch_size, quality="fast").image
    else:
        result = inpaint(image, red, patch_size=patch_size, quality="fast").image
    cast = result.color[:, 0] - result.color[:, 1]
    assert cast.abs().max() < 1e-6


def test_the_hole_is_widened() -> None:
    hole = rectangle(60, 70, slice(20, 30), slice(20, 40))
    wide = rectangle(60, 70, slice(17, 33), slice(17, 43))
    image = torch.rand(1, 3, 60, 70, generator=torch.Generator().manual_seed(0))
    grown, expected = inpaint(image, hole, grow=3, quality="fast"), inpaint(image, wide, quality="fast")
    assert torch.equal(grown.image.color, expected.image.color)
    assert torch.equal(grown.image.color[..., ~wide], image[..., ~wide])


def test_light_comes_from_the_surroundings() -> None:
    """A hill of light with fine texture: no patch outside is as bright as its top, which is in the hole."""
    across, down = torch.linspace(-0.5, 0.5, 120), torch.linspace(-0.5, 0.5, 96)[:, None]
    texture = 0.08 * torch.rand(1, 1, 96, 120, generator=torch.Generator().manual_seed(0))
    image = 0.2 + 0.6 * (1 - 2 * (across.square() + down.square())) + texture
    hole = rectangle(96, 120, slice(28, 68), slice(40, 80))
    missed = (inpaint(image, hole).image.color - image)[..., hole]
    assert missed.mean().abs() < 0.025, "the votes alone miss it by 0.034"


def test_a_network_fills_instead() -> None:
    class Gray:
        def fill(self, image: Tensor, hole: Tensor) -> Tensor:
            return torch.full_like(image, 0.5)

    image, hole = torch.rand(1, 1, 20, 20), rectangle(20, 20, slice(5, 9), slice(5, 9))
    result = inpaint(image, hole, network=Gray())
    assert result.image.color[..., hole].eq(0.5).all()
    assert torch.equal(result.image.color[..., ~hole], image[..., ~hole])
    assert result.field is None
    with pytest.raises(ValueError, match="keep_out: a network copies no patches"):
        inpaint(image, hole, network=Gray(), keep_out=~hole)


def test_nothing_to_fill() -> None:
    image = torch.rand(1, 1, 9, 9)
    result = inpaint(image, torch.zeros(9, 9, dtype=torch.bool))
    assert torch.equal(result.image.color, image)
    assert result.field is None


def copied_from(result: Inpainting, patch_size: int = 1) -> Tensor:
    """The pixels that were copied, or those of all patches that were averaged."""
    assert result.field is not None
    index = result.field.index
    centers = torch.zeros(result.image.size, dtype=torch.bool)
    centers.view(-1)[index[index >= 0].long()] = True
    return dilated(centers[None, None], patch_size // 2)[0, 0]


def test_nothing_is_copied_from_the_hole_or_from_where_it_is_forbidden() -> None:
    hole = rectangle(70, 80, slice(25, 45), slice(30, 50))
    keep_out = rectangle(70, 80, slice(0, 70), slice(55, 80))
    image = photograph(slice(100, 170), slice(200, 280))
    free, bound = inpaint(image, hole), inpaint(image, hole, keep_out=keep_out)
    assert not (copied_from(free) & hole).any()
    assert (copied_from(free) & keep_out).any()
    assert not (copied_from(bound) & (hole | keep_out)).any()


@pytest.mark.parametrize("side", [4, 22], ids=["thin", "wide"])
def test_a_guide_of_phases_keeps_copies_in_step(side: int) -> None:
    """In noise nothing else says where to copy from."""
    image = torch.rand(1, 3, 72, 96, generator=torch.Generator().manual_seed(0))
    hole = rectangle(72, 96, slice(24, 24 + side), slice(30, 30 + side))
    angle = 2 * torch.pi / 8 * torch.arange(96).expand(72, 96)
    guide = 10 * torch.stack([angle.cos(), angle.sin()])
    for given_guide, least, most in ((None, 0.0, 0.9), (guide, 1.0, 1.0)):
        field = inpaint(image, hole, patch_size=7, quality="fast", guide=given_guide).field
        assert field is not None
        across = field.offsets()[0, 0, 0, 1][field.index[0, 0, 0] >= 0]
        assert least <= (across % 8 == 0).float().mean() <= most


def test_a_guide_of_labels_says_what_is_copied() -> None:
    """All around the hole is blue; the guide calls it red, as the left half is."""
    noise = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    guide = rectangle(64, 96, slice(0, 64), slice(48, 96))[None].float()
    blue = torch.tensor([0.2, 0.2, 1.0])[:, None, None]
    image = noise * torch.where(guide > 0, blue, blue.flip(0))
    hole = rectangle(64, 96, slice(20, 44), slice(62, 86))
    free, bound = (
        inpaint(image, hole, patch_size=7, quality="fast", guide=by).image.color
        for by in (None, 10 * guide.where(~hole, 0))
    )
    for filled, channel in ((free, 2), (bound, 0)):
        assert filled[0, :, 22:42, 64:84].mean((1, 2)).argmax() == channel
    assert torch.equal(bound[..., ~hole], image[..., ~hole])


def test_a_guide_must_fit() -> None:
    image, hole = torch.rand(1, 3, 20, 30), rectangle(20, 30, slice(5, 9), slice(5, 9))
    with pytest.raises(ValueError, match=r"guide: got shape \(20, 30\) of torch.float32; expected floats of shape"):
        inpaint(image, hole, guide=torch.rand(20, 30))
    with pytest.raises(ValueError, match=r"guide: got shape \(1, 20, 30\) of torch.int64"):
        inpaint(image, hole, guide=torch.ones(1, 20, 30, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"with the image's size, \(20, 30\)"):
        inpaint(image, hole, guide=torch.rand(1, 30, 20))
    with pytest.raises(ValueError, match="guide: it holds NaN or infinity"):
        inpaint(image, hole, guide=torch.full((1, 20, 30), torch.nan))

    class Gray:
        def fill(self, image: Tensor, hole: Tensor) -> Tensor:
            return torch.full_like(image, 0.5)

    with pytest.raises(ValueError, match="guide: a network compares no patches"):
        inpaint(image, hole, network=Gray(), guide=torch.rand(1, 20, 30))


def test_every_pixel_of_the_hole_has_a_source() -> None:
    hole = rectangle(50, 60, slice(20, 30), slice(0, 8))
    result = inpaint(tiles(50, 60), hole, patch_size=5, quality="fast")
    assert result.field is not None
    assert torch.equal(result.field.index[0, 0, 0] >= 0, hole)


@pytest.mark.parametrize("quality", QUALITIES)
def test_texture_is_copied_and_not_blurred(quality: str) -> None:
    image = photograph(slice(10, 150), slice(20, 160))
    hole = rectangle(140, 140, slice(50, 90), slice(55, 95))
    found = inpaint(image, hole, quality=quality).image.color
    smooth = membrane_interpolation(image, hole[None, None])

    def variation(filled: Tensor) -> float:
        part = filled[..., 50:90, 55:95]
        return float(part.diff(dim=2).abs().sum() + part.diff(dim=3).abs().sum())

    def error(filled: Tensor) -> float:
        return float((filled - image)[..., hole].square().mean())

    assert variation(smooth) < 0.5 * variation(image)
    assert 0.85 * variation(image) < variation(found) < 1.1 * variation(image)
    # Texture of the right kind at the wrong place has twice the variance of none.
    assert error(found) < 2.2 * error(smooth)


def test_the_same_seed_gives_the_same_image() -> None:
    image, hole = photograph(slice(0, 64), slice(0, 90)), rectangle(64, 90, slice(20, 40), slice(30, 60))
    first, second, other = (inpaint(image, hole, quality="fast", seed=seed).image.color for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    image, hole = photograph(slice(0, 300), slice(0, 301)), rectangle(300, 301, slice(60, 241), slice(50, 240))

    def filled(threads: int) -> Tensor:
        torch.set_num_threads(threads)
        return inpaint(image, hole, quality="fast").image.color

    two, one = filled(2), filled(1)
    assert torch.equal(one, two)


@pytest.mark.parametrize("quality", QUALITIES)
def test_scales_are_told(quality: str) -> None:
    told: list[str] = []
    inpaint(tiles(90, 90), rectangle(90, 90, slice(30, 62), slice(30, 62)), quality=quality, progress=told.append)
    assert told == [f"scale {n} of {len(told)}" for n in range(1, len(told) + 1)]
    assert len(told) > 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"hole: got None, and the image has no alpha; expected a mask"),
        ({"hole": torch.ones(20, 30).int()}, r"hole: got shape \(20, 30\) of torch.int32; expected booleans"),
        ({"hole": 255 * torch.eye(20, 30)}, r"hole: got values beside \[0, 1\]; expected how much of each pixel"),
        ({"hole": torch.full((20, 30), torch.nan)}, r"hole: got values beside \[0, 1\]"),
        ({"grow": -1, "hole": torch.eye(20, 30) > 0}, r"grow: expected an integer of at least 0"),
        ({"hole": torch.ones(30, 20) > 0}, r"expected booleans of the image's size, \(20, 30\)"),
        (
            {"hole": torch.ones(20, 30) > 0},
            r"hole: no patch of 11 x 11 pixels lies outside of it, so that there is nothing",
        ),
        (
            {"hole": torch.eye(20, 30) > 0, "keep_out": torch.ones(20, 30) > 0},
            r"no patch of 11 x 11 pixels lies outside of it and of keep_out",
        ),
        ({"quality": "perfect"}, r"quality: got 'perfect'; allowed are 'fast', 'good', 'best'"),
        ({"patch_size": 4}, r"patch_size: expected an odd number \(a patch has a center\), got 4"),
        ({"levels": 0}, r"levels: expected an integer of at least 1"),
        ({"iterations": 0}, r"iterations: expected an integer of at least 1"),
        ({"seed": -1}, r"seed: expected an integer of at least 0"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inpaint(torch.rand(1, 3, 20, 30), **arguments)


def test_an_opaque_image_has_no_hole_in_its_alpha() -> None:
    with pytest.raises(ValueError, match=r"hole: got None, and no pixel of the image is transparent; expected a mask"):
        inpaint(Image(torch.rand(1, 3, 20, 30), torch.ones(1, 1, 20, 30)))


def test_a_image_that_is_transparent_everywhere_has_nothing_to_copy() -> None:
    with pytest.raises(ValueError, match="hole: no patch of 11 x 11 pixels lies outside of the image's transparent"):
        inpaint(Image(torch.rand(1, 3, 20, 30), torch.full((1, 1, 20, 30), 0.99)))


@settings(max_examples=15)
@given(
    height=st.integers(9, 40),
    width=st.integers(9, 40),
    channels=st.sampled_from([1, 3]),
    patch_size=st.sampled_from([1, 3, 5]),
    seed=st.integers(0, 2**31),
)
def test_any_size_and_any_hole(height: int, width: int, channels: int, patch_size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, channels, height, width, generator=generator)
    top, left = (int(torch.randint(n - 6, (1,), generator=generator)) for n in (height, width))
    hole = torch.rand(height, width, generator=generator) < 0.01
    hole[top : top + 4, left : left + 5] = True
    hole[:5, :5] = hole[-5:, -5:] = False  # something to copy
    result = inpaint(image, hole, patch_size=patch_size, quality="fast").image.color
    assert result.shape == image.shape
    assert torch.equal(result[..., ~hole], image[..., ~hole])
    assert result.min() >= 0
    assert result.max() <= 1


def test_a_smooth_fill_continues_a_ramp() -> None:
    ramp = torch.linspace(0, 1, 33)[None, None, None].expand(1, 2, 33, 33)
    hole = rectangle(33, 33, slice(12, 20), slice(12, 20))[None, None]
    filled = membrane_interpolation(torch.where(hole, 7, ramp), hole, relaxations=500)
    torch.testing.assert_close(filled, ramp, rtol=0, atol=1e-3)


def test_a_smooth_fill_is_the_same_where_it_is_needed() -> None:
    image, hole = photograph(slice(0, 90), slice(0, 100)), line(90, 100, 40)[None, None]
    needed = line(90, 100, 10)[None, None]
    filled, partly = membrane_interpolation(image, hole), membrane_interpolation(image, hole, needed=needed)
    # The rest is not relaxed, which is felt one pixel farther in with every relaxation.
    assert (partly - filled)[..., line(90, 100, 1)].abs().max() < 0.02
    assert torch.equal(partly[..., ~hole[0, 0]], image[..., ~hole[0, 0]])
    assert torch.equal(membrane_interpolation(image, hole, needed=hole), filled)


def test_holes_far_apart_are_filled_each_by_itself() -> None:
    image = tiles(200, 220)
    hole = rectangle(200, 220, slice(10, 24), slice(12, 30)) | rectangle(200, 220, slice(170, 190), slice(190, 207))
    result = inpaint(image, hole, levels=1)
    torch.testing.assert_close(result.image.color, image, rtol=0, atol=0.02)
    assert result.field is not None
    assert torch.equal(result.field.index[0, 0, 0] >= 0, hole)


def specks(height: int, width: int, count: int, largest: int, seed: int = 0) -> Tensor:
    """Dust: squares of random size."""
    generator = torch.Generator().manual_seed(seed)
    hole = torch.zeros(height, width, dtype=torch.bool)
    for _ in range(count):
        row, column, side = (
            int(torch.randint(low, n, (1,), generator=generator))
            for low, n in ((0, height), (0, width), (1, largest + 1))
        )
        hole[row : row + side, column : column + side] = True
    return hole


def line(height: int, width: int, thickness: int) -> Tensor:
    """A scratch from corner to corner."""
    across = torch.arange(width) * height / width
    return (torch.arange(height)[:, None] - across).abs() <= thickness / 2


THIN = {
    "dust": specks(200, 240, 60, 6),
    "scratch": line(200, 240, 2),
    "wire": rectangle(200, 240, slice(0, 200), slice(100, 105)),
    "dense-dust": specks(200, 240, 300, 3),
    "dust-on-the-border": rectangle(200, 240, slice(0, 3), slice(0, 240)) | specks(200, 240, 20, 5, seed=1),
    "spots-as-wide-as-a-patch": specks(200, 240, 8, 14),
}


@pytest.mark.parametrize("hole", THIN.values(), ids=list(THIN))
def test_thin_holes_are_completed_well_and_in_tiles(hole: Tensor) -> None:
    image = photograph(slice(60, 260), slice(120, 360))
    reports: list[str] = []
    result = inpaint(image, hole, progress=reports.append)
    found = result.image.color
    assert all(report.startswith("tile ") for report in reports)
    assert torch.equal(found[..., ~hole], image[..., ~hole])
    smooth = membrane_interpolation(image, hole[None, None])
    errors = [(filled - image)[..., hole].square().mean() for filled in (found, smooth)]
    assert errors[0] < 1.15 * errors[1]
    assert result.field is not None
    matched = result.field.index[0, 0, 0] >= 0
    assert matched[dilated(hole[None, None], 3)[0, 0]].all()
    assert not matched[~dilated(hole[None, None], 5)[0, 0]].any()
    assert not (copied_from(result, 7) & hole).any()


def test_dust_far_away_changes_nothing() -> None:
    image = photograph(slice(60, 260), slice(100, 500))
    near, far = specks(200, 400, 30, 5), specks(200, 400, 30, 5, seed=1)
    near[:, 120:] = far[:, :280] = False
    alone, both = (inpaint(image, hole).image.color for hole in (near, near | far))
    assert torch.equal(alone[..., :160], both[..., :160])


def test_dust_beside_a_wide_hole_leaves_it_to_the_scales() -> None:
    image = photograph(slice(60, 200), slice(120, 300))
    wide, dust = rectangle(140, 180, slice(40, 80), slice(50, 90)), specks(140, 180, 30, 4)
    reports: list[str] = []
    result = inpaint(image, wide | dust, quality="fast", progress=reports.append)
    assert {report.split()[0] for report in reports} == {"tile", "scale"}
    assert result.field is not None
    assert (result.field.index[0, 0, 0] >= 0)[wide | dust].all()
    assert not (copied_from(result) & (wide | dust)).any()
    alone = inpaint(image, wide, quality="fast").image.color
    errors = [(filled - image)[..., wide].square().mean() for filled in (result.image.color, alone)]
    assert errors[0] < 1.3 * errors[1]


def test_a_thin_hole_is_not_copied_from_where_it_is_forbidden() -> None:
    image, hole = photograph(slice(60, 200), slice(120, 300)), specks(140, 180, 10, 4)
    keep_out = torch.ones(140, 180, dtype=torch.bool)
    keep_out[100:130, 140:175] = False  # far from most of the dust
    result = inpaint(image, hole, keep_out=keep_out)
    assert not (copied_from(result, 7) & (hole | keep_out)).any()


@pytest.mark.parametrize("hole", THIN.values(), ids=list(THIN))
def test_parts_are_thin_where_no_square_fits(hole: Tensor) -> None:
    wide = rectangle(200, 240, slice(150, 190), slice(30, 70))
    both = (hole & ~dilated(wide[None, None], 40)[0, 0] | wide)[None, None]
    thin = thin_part(both, 16, reach=5)
    assert torch.equal(thin[0, 0], both[0, 0] & ~wide)
    assert torch.equal(thin_part(both, 64, reach=5), both)
    assert not thin_part(both, 1, reach=0).any()


@settings(max_examples=50)
@given(height=st.integers(1, 400), width=st.integers(1, 400), count=st.integers(0, 40), seed=st.integers(0, 2**31))
def test_tiles_hold_everything_and_do_not_overlap(height: int, width: int, count: int, seed: int) -> None:
    touched = specks(height, width, count, 9, seed)
    covered = torch.zeros(height, width, dtype=torch.int)
    for rows, columns in tiles_of(touched[None, None], 64):
        assert touched[rows, columns].any()
        covered[rows, columns] += 1
    assert covered.max() <= 1
    assert covered[touched].eq(1).all()


def test_tiles_follow_what_is_touched() -> None:
    """Their surroundings together are far fewer pixels than the image has, and no tile is larger than its bound."""
    for touched in (line(2000, 3000, 3), specks(2000, 3000, 6, 9), rectangle(2000, 3000, slice(0, 2000), slice(7, 9))):
        tiles_ = tiles_of(touched[None, None], 64)
        pixels = sum((r.stop - r.start + 128) * (c.stop - c.start + 128) for r, c in tiles_)
        assert pixels < 0.25 * touched.numel()
    everything = tiles_of(torch.ones(1, 1, 2000, 3000, dtype=torch.bool), 64)
    assert max((r.stop - r.start) * (c.stop - c.start) for r, c in everything) <= 1280**2
    assert len(everything) <= 8


@settings(max_examples=50)
@given(height=st.integers(1, 30), width=st.integers(1, 30), share=st.floats(0, 0.2), seed=st.integers(0, 2**31))
def test_boxes_hold_everything_and_do_not_overlap(height: int, width: int, share: float, seed: int) -> None:
    mask = torch.rand(height, width, generator=torch.Generator().manual_seed(seed)) < share
    covered = torch.zeros(height, width, dtype=torch.int)
    for box in bounding_boxes(mask):
        assert mask[box].any()
        covered[box] += 1
    assert covered.max() <= 1
    assert covered[mask].eq(1).all()


def test_boxes_are_cut_where_gaps_are_wide() -> None:
    corners = rectangle(100, 100, slice(0, 10), slice(0, 10)) | rectangle(100, 100, slice(90, 100), slice(90, 100))
    assert bounding_boxes(corners) == [(slice(0, 10), slice(0, 10)), (slice(90, 100), slice(90, 100))]
    near = rectangle(100, 100, slice(0, 50), slice(0, 10)) | rectangle(100, 100, slice(60, 100), slice(0, 10))
    assert bounding_boxes(near) == [(slice(0, 100), slice(0, 10))]


def test_scales_halve_and_forget_what_they_cannot_know() -> None:
    hole = rectangle(101, 130, slice(30, 70), slice(40, 90))[None, None]
    image = torch.where(hole, 9.0, 0.5).expand(1, 3, 101, 130)
    keep_out = torch.zeros_like(hole)
    keep_out[..., 90:, :] = True
    scales = image_pyramid(image, hole, keep_out, 7, levels=3)
    assert [scale.size for scale in scales] == [(101, 130), (51, 65)]  # a third would be too small for patches of 7
    for scale in scales:
        known = ~scale.hole
        torch.testing.assert_close(scale.image, 0.5 * known.expand_as(scale.image), rtol=0, atol=1e-6)
        assert scale.texture.abs().max() < 1e-6
        assert not (dilated(scale.sources, 3) & scale.hole).any()
    assert not scales[1].sources[..., 43:, :].any()
    assert 0.15 < scales[1].hole.float().mean() / hole.float().mean() < 1.3
