"""Luminance and CIELAB, against scikit-image and against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.color
import skimage.data
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchattn.tasks.colors import from_lab, to_gray, to_lab, with_luminance


def photograph() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut()[::8, ::8].copy()).permute(2, 0, 1)[None].float() / 255


def channel_last(image: Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).double().numpy()


numbers = st.floats(0, 1, width=32)
pixels = st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=50)


def columns(drawn: list[tuple[float, ...]]) -> tuple[Tensor, Tensor]:
    table = torch.tensor(drawn).T[None, :, None]
    return table[:, :3], table[:, 3:]


def test_lab_is_that_of_scikit_image() -> None:
    expected = skimage.color.rgb2lab(channel_last(photograph()))
    np.testing.assert_allclose(channel_last(to_lab(photograph())), expected, atol=1e-3)


def test_lab_and_back() -> None:
    torch.testing.assert_close(from_lab(to_lab(photograph())), photograph(), atol=2e-3, rtol=0)


def test_lab_of_colors_that_do_not_exist_is_not_clipped() -> None:
    green = torch.tensor([80.0, -120.0, 20.0]).view(1, 3, 1, 1)
    assert from_lab(green).min() < -0.05


def test_gray_has_the_lightness_of_the_color() -> None:
    gray = to_gray(photograph()).expand(-1, 3, -1, -1)
    expected = skimage.color.rgb2lab(channel_last(photograph()))[:, :, 0]
    np.testing.assert_allclose(skimage.color.rgb2lab(channel_last(gray))[:, :, 0], expected, atol=0.02)


def test_gray_of_gray_is_itself() -> None:
    gray = torch.linspace(0, 1, 65536).view(1, 1, 256, 256)
    torch.testing.assert_close(to_gray(gray.expand(-1, 3, -1, -1)), gray, atol=1e-6, rtol=0)


@given(pixels)
def test_the_luminance_asked_for_is_the_luminance_got(drawn: list[tuple[float, ...]]) -> None:
    rgb, gray = columns(drawn)
    out = with_luminance(rgb, gray)
    assert out.min() >= 0
    assert out.max() <= 1
    torch.testing.assert_close(to_gray(out), gray, atol=3e-6, rtol=0)


@given(pixels)
def test_colors_keep_their_hue(drawn: list[tuple[float, ...]]) -> None:
    rgb, gray = (part.double() for part in columns(drawn))
    linear, out = (
        torch.from_numpy(np.where(x > 0.04045, ((x + 0.055) / 1.055) ** 2.4, x / 12.92))
        for x in (rgb.numpy(), with_luminance(rgb, gray).numpy())
    )
    weights = torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.float64).view(1, 3, 1, 1)
    before = linear - (linear * weights).sum(1, keepdim=True)
    after = out - (out * weights).sum(1, keepdim=True)
    # Parallel, of the same direction, and not longer than before.
    torch.testing.assert_close(torch.linalg.cross(before, after, dim=1), torch.zeros_like(before), atol=1e-6, rtol=0)
    assert ((before * after).sum(1) >= -1e-6).all()
    assert (after.norm(dim=1) <= before.norm(dim=1) + 1e-6).all()


@given(pixels)
def test_its_own_luminance_changes_nothing(drawn: list[tuple[float, ...]]) -> None:
    rgb = columns(drawn)[0].double()
    torch.testing.assert_close(with_luminance(rgb, to_gray(rgb)), rgb, atol=1e-5, rtol=0)


def test_color_is_as_strong_as_fits() -> None:
    rgb = torch.rand(1, 3, 50, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dark = with_luminance(rgb, torch.full((1, 1, 50, 50), 0.05, dtype=torch.float64))
    assert dark.amin(1).max() < 0.05
    touches = (dark.amin(1) < 1e-6) | (dark.amax(1) > 1 - 1e-6)
    linear = to_gray(rgb)[:, 0] > 0.4  # these are far from what 0.05 has room for
    assert touches[linear].double().mean() > 0.8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: to_gray(torch.rand(1, 1, 4, 4)), r"rgb: got shape \(1, 1, 4, 4\) of torch.float32; expected"),
        (lambda: to_lab(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), "rgb: got shape .* of torch.uint8"),
        (lambda: from_lab(torch.rand(3, 4, 4)), "lab: got shape"),
        (lambda: with_luminance(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4)), r"gray: .*\(batch, 1, height"),
        (lambda: with_luminance(torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 5)), r"gray: got size \(4, 5\)"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
