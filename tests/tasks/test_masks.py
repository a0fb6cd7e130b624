"""What masks cover, in all the ways in which they are drawn and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patchattn.tasks.images import read_image
from patchattn.tasks.masks import MaskOptions, add_jpeg_rim, read_mask

pytestmark = pytest.mark.usefixtures("one_thread")

Array = NDArray[Any]

SIZE = (120, 160)
RED, BLACK, WHITE, GRAY = (255, 0, 0), (0, 0, 0), (255, 255, 255), (128, 128, 128)
PHOTO = skimage.data.coffee()[: SIZE[0], : SIZE[1]]
PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0] + [0] * 253 * 3


def shape(soft: bool) -> Array:
    """A disc of 0 and 255, or with a soft edge."""
    large = Image.new("L", (4 * SIZE[1], 4 * SIZE[0]))
    ImageDraw.Draw(large).ellipse((200, 140, 400, 300), fill=255)
    small = np.asarray(large.resize((SIZE[1], SIZE[0]), Image.Resampling.BOX))
    return small if soft else np.where(small > 127, 255, 0).astype(np.uint8)


HARD, SOFT = shape(soft=False), shape(soft=True)


def mixed(paint: Any, ground: Any, share: Array) -> Array:
    part = share[..., None] / 255
    return np.rint(np.asarray(paint) * part + np.asarray(ground) * (1 - part)).astype(np.uint8)


def on_transparency(color: Any, share: Array) -> Array:
    return np.dstack([np.broadcast_to(np.asarray(color, np.uint8), (*SIZE, 3)), share])


def labels(values: tuple[int, ...], dtype: type = np.uint8) -> Array:
    """The disc and a square, on 0."""
    found = np.zeros(SIZE, dtype)
    found[HARD > 0] = values[0]
    if len(values) > 1:
        found[10:20, 10:20] = values[1]
    return found


def indexed(array: Array) -> Image.Image:
    image = Image.fromarray(array, "P")
    image.putpalette(PALETTE)
    return image


def coverage(folder: Path, image: Array | Image.Image, suffix: str = ".png", photo: Array = PHOTO, **how: Any) -> Array:
    save = {name: how.pop(name) for name in ("quality",) if name in how}
    path = folder / f"mask{suffix}"
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **save)
    Image.fromarray(photo).save(folder / "photo.png")
    return read_mask(path, read_image(folder / "photo.png"), MaskOptions(**how)).numpy()


PAINTS = [(255, 0, 0), (0, 255, 0), (128, 0, 0), (255, 0, 255), (40, 80, 220)]
UNDERSTOOD = {
    "gray": lambda share: share,
    "rgb": lambda share: np.dstack([share] * 3),
    "palette": lambda share: Image.fromarray(share).convert("P"),
    "16-bit": lambda share: share.astype(np.uint16) * 257,
    "opaque-rgba": lambda share: on_transparency(np.dstack([share] * 3), np.full(SIZE, 255, np.uint8)),
    "half-white": lambda share: share // 2,
    "video-range": lambda share: (16 + share / 255 * 219).astype(np.uint8),
    "gray-on-gray": lambda share: (64 + share / 255 * 136).astype(np.uint8),
    "white-in-alpha": lambda share: on_transparency(WHITE, share),
    "black-in-alpha": lambda share: on_transparency(BLACK, share),
    "red-in-alpha": lambda share: on_transparency(RED, share),
    "gray-in-alpha": lambda share: np.dstack([np.full(SIZE, 90, np.uint8), share]),
    "cut-out": lambda share: on_transparency(PHOTO, share),
    **{
        f"{paint}-on-{ground}": lambda share, paint=paint, ground=ground: mixed(paint, (ground,) * 3, share)
        for paint in PAINTS
        for ground in (0, 128, 255)
    },
}


@pytest.mark.parametrize("share", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("make", UNDERSTOOD.values(), ids=list(UNDERSTOOD))
def test_a_shape_is_understood(tmp_path: Path, make: Any, share: Array) -> None:
    found = coverage(tmp_path, make(share))
    np.testing.assert_allclose(found, share / 255, atol=0.01)
    np.testing.assert_array_equal(found > 0, share > 0)


@pytest.mark.parametrize(
    "image",
    [
        labels((1,)),
        labels((1,), np.uint16),
        labels((255,), np.uint16),
        labels((7,)),
        Image.fromarray(HARD > 0),
        indexed(labels((1,))),
        indexed(labels((2,))),
    ],
    ids=["0-1", "0-1-of-16-bits", "0-255-of-16-bits", "0-7", "1-bit", "first-label", "second-label"],
)
def test_two_levels_are_a_shape_however_dark(tmp_path: Path, image: Any) -> None:
    np.testing.assert_array_equal(coverage(tmp_path, image), HARD / 255)


def test_all_gray_labels_are_the_shape(tmp_path: Path) -> None:
    for values in ((1, 2), (2, 1), (1, 255), (128, 255), (3, 9)):
        image = labels(values)
        np.testing.assert_array_equal(coverage(tmp_path, image) > 0, image > 0)


def test_white_on_black_within_what_is_seen(tmp_path: Path) -> None:
    image = on_transparency(np.dstack([HARD] * 3), np.full(SIZE, 255, np.uint8))
    image[:, :80, 3] = 0  # half of the white is not seen
    expected = HARD.copy()
    expected[:, :80] = 0
    np.testing.assert_array_equal(coverage(tmp_path, image), expected / 255)


@pytest.mark.parametrize("paint", [RED, WHITE, (0, 200, 60), GRAY, BLACK], ids=str)
@pytest.mark.parametrize("share", [HARD, SOFT], ids=["hard", "soft"])
def test_paint_over_the_photograph_is_where_it_differs(tmp_path: Path, share: Array, paint: Any) -> None:
    painted = mixed(paint, PHOTO, share)
    np.testing.assert_array_equal(coverage(tmp_path, painted), (np.abs(painted.astype(int) - PHOTO) > 1).any(2))


def test_a_mask_is_not_taken_for_a_dark_photograph(tmp_path: Path) -> None:
    night = np.zeros_like(PHOTO)
    night[5:8, 100:104] = night[60:63, 20:24] = 200
    np.testing.assert_array_equal(coverage(tmp_path, HARD, photo=night), HARD / 255)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("quality", [50, 75, 90])
@pytest.mark.parametrize("share", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("color", [None, RED, (40, 80, 220)], ids=["white", "red", "blue"])
def test_noise_of_lossy_formats_is_not_covered(
    tmp_path: Path, suffix: str, quality: int, share: Array, color: Any
) -> None:
    image = share if color is None else mixed(color, WHITE, share)
    found = coverage(tmp_path, image, suffix, quality=quality)
    near = np.asarray(Image.fromarray(share).resize((SIZE[1] // 4, SIZE[0] // 4)).resize((SIZE[1], SIZE[0]))) > 0
    assert (found[share > 40] > 0).all()
    assert (found > 0).sum() < 1.35 * (share > 0).sum()
    assert (found[~near] > 0).sum() < 0.1 * (share > 0).sum()


@pytest.mark.parametrize(
    ("image", "color", "expected"),
    [
        (mixed(RED, PHOTO, HARD), "red", HARD),
        (mixed(BLACK, WHITE, SOFT), "black", SOFT),
        (mixed(BLACK, WHITE, SOFT), "white", 255 - SOFT),
        (mixed(RED, WHITE, SOFT), "#f00", SOFT),
        (mixed((200, 30, 30), WHITE, HARD), "#d01818", HARD),
        (labels((1, 2)), "#010101", HARD),
        (labels((1, 2)), "#020202", 255 * (labels((0, 1)) > 0)),
        (indexed(labels((1, 2))), "#008000", 255 * (labels((0, 1)) > 0)),
        (on_transparency(RED, SOFT), "red", SOFT),
    ],
)
def test_a_color_is_given(tmp_path: Path, image: Any, color: str, expected: Array) -> None:
    np.testing.assert_allclose(coverage(tmp_path, image, color=color), expected / 255, atol=0.005)


@pytest.mark.parametrize(
    "image",
    [
        255 - SOFT,
        on_transparency(WHITE, 255 - SOFT),
        on_transparency(PHOTO, 255 - SOFT),
        on_transparency(BLACK, 255 - SOFT),
        np.dstack([255 - SOFT] * 3),
    ],
    ids=["black-on-white", "erased-from-white", "erased-photograph", "erased-from-black", "rgb"],
)
def test_inverted_masks_are_refused_and_can_be_inverted(tmp_path: Path, image: Any) -> None:
    with pytest.raises(ValueError, match=r"mask: .*mask.png covers 92.1 % of the image and is probably inverted"):
        coverage(tmp_path, image)
    np.testing.assert_allclose(coverage(tmp_path, image, invert=True), SOFT / 255, atol=0.01)


@pytest.mark.parametrize(
    ("image", "how", "message"),
    [
        (np.zeros(SIZE, np.uint8), {}, r"covers nothing \(it holds: black 100 %\); expected a light shape on black"),
        (np.full(SIZE, 255, np.uint8), {}, r"covers the whole image \(it holds: white 100 %\)"),
        (np.full((*SIZE, 3), RED, np.uint8), {}, r"covers the whole image \(it holds: red 100 %\)"),
        (np.zeros((*SIZE, 4), np.uint8), {}, r"is transparent everywhere \(it holds: transparent 100 %\)"),
        (PHOTO, {}, "is the photograph itself, with nothing painted over it"),
        (PHOTO.mean(2).astype(np.uint8), {}, r"holds several colors, of which none is clearly .* many other colors\)"),
        (PHOTO[::-1].copy(), {}, "and many other colors"),
        (indexed(labels((1, 2))), {}, r"several colors.*\(it holds: black 91.2 %, #800000 8.29 %, #008000 0.521 %\)"),
        (HARD, {"color": "blue"}, r"has no pixel of the color blue \(it holds: black 91.7 %, white 8.29 %\)"),
        (HARD, {"color": "nocolor"}, r"^color: got 'nocolor'; expected a color's name, as red, or #rrggbb"),
        (np.zeros(SIZE, np.uint8), {"invert": True}, "covers the whole image"),
        (np.zeros(SIZE, np.uint8), {"invert_argument": "--turn"}, "; --turn covers the rest instead, color says which"),
        (
            np.zeros(SIZE, np.uint8),
            {"argument": "--m", "invert_argument": None, "color_argument": None},
            r"^--m: .*mask.png covers nothing .*; expected a light shape on black, or .* on transparency\.$",
        ),
        (HARD[:60], {}, "has 160 x 60 pixels, the photograph has 160 x 120; expected the same size.$"),
        (np.rot90(HARD).copy(), {}, r"has 120 x 160 pixels.* \(it seems to lie on its side: turn it upright"),
    ],
)
def test_what_is_not_clear_is_said(tmp_path: Path, image: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coverage(tmp_path, image, **how)


def test_a_mask_is_turned_as_its_file_says(tmp_path: Path) -> None:
    turned = Image.fromarray(np.rot90(HARD).copy())
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "mask.png", exif=exif)
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    found = read_mask(tmp_path / "mask.png", read_image(tmp_path / "photo.png"))
    assert torch.equal(found > 0, torch.from_numpy(HARD > 0))


def test_most_of_the_image_may_be_kept_out(tmp_path: Path) -> None:
    found = coverage(tmp_path, 255 - SOFT, invert_argument=None)
    np.testing.assert_allclose(found, 1 - SOFT / 255, atol=0.01)


@pytest.mark.parametrize(("suffix", "rim"), [(".jpg", 2), (".png", 0), (".webp", 0), (".tif", 0), (".bmp", 0)])
def test_jpeg_leaves_traces_beside_an_object(tmp_path: Path, suffix: str, rim: int) -> None:
    Image.fromarray(PHOTO).save(tmp_path / f"photo{suffix}")
    hole = torch.zeros(SIZE)
    hole[40:60, 50:90] = 0.5
    hole[10:14, 10:17] = hole[100:103] = 1  # dust and a scratch
    expected = hole > 0
    expected[40 - rim : 60 + rim, 50 - rim : 90 + rim] = True
    assert torch.equal(add_jpeg_rim(hole, tmp_path / f"photo{suffix}") > 0, expected)


@pytest.mark.parametrize("quality", [75, 85, 95])
@pytest.mark.parametrize("paint", [RED, (0, 200, 60), (40, 80, 220)], ids=["red", "green", "blue"])
def test_beyond_the_rim_a_jpeg_has_no_color_of_the_object(tmp_path: Path, paint: Any, quality: int) -> None:
    Image.fromarray(mixed(paint, GRAY, HARD)).save(tmp_path / "photo.jpg", quality=quality)
    photo = read_image(tmp_path / "photo.jpg").color[0]
    rim = add_jpeg_rim(torch.from_numpy(HARD / 255), tmp_path / "photo.jpg") > 0
    cast = (photo - photo.mean(0)).abs().amax(0)
    assert cast[~torch.from_numpy(HARD > 0)].max() > 0.1
    assert cast[~rim].mean() < 0.002
    assert cast[~rim].max() < 0.1
