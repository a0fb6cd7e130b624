"""Images with alpha: visible colors, and resampling that weights colors by alpha.

A pixel of color c and alpha a is seen as a c on black, and as 1 - a (1 - c) on white; on any other background as a mix
of the two. Where alpha is low, the stored color is hardly seen, and may be anything.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.deprecation import renamed_argument
from patchattn.tasks.images import Image
from patchattn.tasks.membrane import membrane_interpolation
from patchattn.tasks.resampling import FAR_SIDE, Bounds, back_project, local_bounds, resize

__all__ = ["check_visible", "enlarge_with_alpha", "resize_with_alpha", "visible", "visible_color"]

MIN_VISIBLE_ALPHA = 1 / 16
"""Smallest alpha, relative to the image's largest, at which colors take part in matching, prediction and copying."""
BACKGROUNDS = (0.0, 0.5, 1.0)
"""Gray backgrounds on which an enlarged image must show no ringing."""
NEAR_EDGE_SIDE = 11
"""Side of the neighborhood, in low-resolution pixels, whose range bounds what is seen near edges of alpha, where a rim
would show on every background; elsewhere it is `resampling.FAR_SIDE`."""
EVEN_ALPHA = 1 / 16
"""Largest variation of alpha near a pixel, relative to the image's largest, at which there is no edge."""
ALPHA_EPSILON = 1e-6
"""Alpha added to numerator and denominator when dividing by alpha; smaller than one 16-bit step."""


def visible(alpha: Float[Tensor, "1 1 height width"]) -> Bool[Tensor, "1 1 height width"]:
    """Mask of the visible pixels: alpha of at least 1/16 of the image's largest.

    Example:
        >>> visible(torch.tensor([0.0, 0.02, 0.5, 1.0]).view(1, 1, 1, 4)).flatten().tolist()
        [False, False, True, True]
    """
    return (alpha >= MIN_VISIBLE_ALPHA * alpha.max()) & (alpha > 0)


@renamed_argument("picture", "image")
def visible_color(image: Image) -> Float[Tensor, "1 channels height width"]:
    """Fill the colors of nearly transparent pixels by membrane interpolation of the visible ones.

    Args:
        image: any; where it is opaque its colors are returned as they are, and likewise where all of it is
            transparent.

    Returns:
        The colors, in single precision at least.

    Example:
        >>> alpha = torch.tensor([1.0, 1.0, 0.01]).view(1, 1, 1, 3)
        >>> visible_color(Image(torch.tensor([0.5, 0.5, 0.0]).view(1, 1, 1, 3), alpha)).flatten().tolist()
        [0.5, 0.5, 0.5]
    """
    color = _widened(image.color)
    if image.alpha is None or _ignored(image.alpha):
        return color
    return membrane_interpolation(color, ~visible(image.alpha))


def check_visible(name: str, image: Image) -> None:
    """Raise a `ValueError` if an image to take colors from is fully transparent."""
    if image.alpha is not None and not image.alpha.any():
        raise ValueError(f"{name}: it is wholly transparent; expected visible colors to take.")


def resize_with_alpha(
    color: Float[Tensor, "1 channels height width"],
    alpha: Float[Tensor, "1 1 height width"] | None,
    size: tuple[int, int],
) -> tuple[Float[Tensor, "1 channels new_height new_width"], Float[Tensor, "1 1 new_height new_width"] | None]:
    """Resize an image with premultiplied alpha (`resampling.resize`).

    Args:
        color: gray or RGB, not multiplied with alpha; float32 or float64.
        alpha: opacity in [0, 1], or None: opaque.
        size: (height, width) of the result.

    Returns:
        The colors, not multiplied with alpha, and alpha, both in [0, 1]. Where nothing is seen, colors continue those
        beside them.

    Example:
        >>> color = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)  # white, and black that is nearly transparent
        >>> color, alpha = resize_with_alpha(color, torch.tensor([1.0, 0.01]).view(1, 1, 1, 2), (1, 1))
        >>> round(color.item(), 3), round(alpha.item(), 3)
        (0.99, 0.505)
    """
    if alpha is None:
        return resize(color, size).clamp(0, 1), None
    if _ignored(alpha):
        return resize(color, size).clamp(0, 1), alpha.max().expand(1, 1, *size).clone()
    new_alpha = resize(alpha, size).clamp(0, 1)
    on_black = torch.minimum(resize(alpha * color, size).clamp(min=0), new_alpha)
    return _divided(on_black, new_alpha, resize(visible_color(Image(color, alpha)), size)), new_alpha


@renamed_argument("picture", "image")
def enlarge_with_alpha(
    high: Float[Tensor, "1 channels high_height high_width"],
    image: Image,
) -> tuple[Float[Tensor, "1 channels high_height high_width"], Float[Tensor, "1 1 high_height high_width"] | None]:
    r"""Back-project an enlarged image so that, downsampled and composited, it equals `image`.

    Alpha a is enlarged to A by interpolation, and the same is done to it as to colors without alpha: back-projection
    within `local_bounds`. What is seen on black is then

    $$p = \uparrow(a c) + A\,(h - \uparrow v), \qquad p \leftarrow p + \uparrow\big(a c - v\,(a - \downarrow A) -
      \downarrow p\big)$$

    v being `visible_color` and h - up(v) the detail; p / A is the color. What p lacks because A is not exactly alpha
    when it is made smaller is left out of account. Throughout, p stays where the image as seen on black, on white and
    on the gray between keeps within its local bounds, and colors within those of v, or where nothing near is visible
    within those of the colors that have any alpha: no background shows a rim.

    Args:
        high: an enlargement of `visible_color(image)`, with whatever detail; float32 or float64.
        image: the small image.

    Returns:
        The colors, not multiplied with alpha, and alpha, both in [0, 1].
    """
    size = (high.shape[2], high.shape[3])
    color = _widened(image.color)
    if image.alpha is None or _ignored(image.alpha):
        bounds = local_bounds(color, size)
        alpha = None if image.alpha is None else image.alpha.max().expand(1, 1, *size).clone()
        return back_project(high, color, bounds=bounds).clamp(0, 1), alpha
    low_alpha, guide = _widened(image.alpha), visible_color(image)
    # An alpha beyond those of the nearest pixels could only be seen as something that none of them shows.
    alpha_bounds = local_bounds(low_alpha, size, overshoot=0)
    alpha = back_project(resize(low_alpha, size), low_alpha, bounds=alpha_bounds).clamp(0, 1)
    low, interpolated = low_alpha * color, resize(guide, size)
    seen = resize(low, size) + alpha * (high - interpolated)
    target = low - guide * (low_alpha - resize(alpha, image.size))
    seen = back_project(seen, target, bounds=_bounds_as_seen(low, low_alpha, alpha))
    # Where alpha is low, little that is seen is much of a color: no color comes that is not stored nearby.
    found = _divided(seen, alpha, interpolated)
    stored = _bounds(membrane_interpolation(color, low_alpha == 0), low_alpha, size).clamp(found)
    near_visible = local_bounds(visible(low_alpha).to(alpha.dtype), size, overshoot=0).upper > 0
    return torch.where(near_visible, _bounds(guide, low_alpha, size).clamp(found), stored), alpha


def _ignored(alpha: Tensor) -> bool:
    """Return whether alpha is 1 everywhere or 0 everywhere, so that it carries no information on visible colors."""
    return bool((alpha == 1).all()) or not bool(alpha.any())


def _bounds_as_seen(low: Tensor, low_alpha: Tensor, alpha: Tensor) -> Bounds:
    """Bounds on premultiplied colors within the local bounds of `low` on every background."""
    size = (alpha.shape[2], alpha.shape[3])
    bounds = _bounds(low, low_alpha, size)
    for gray in BACKGROUNDS[1:]:
        # Less the background itself, which is the same everywhere.
        seen = _bounds(low - gray * low_alpha, low_alpha, size)
        lower, upper = seen.lower + gray * alpha, seen.upper + gray * alpha
        bounds = Bounds(torch.maximum(bounds.lower, lower), torch.minimum(bounds.upper, upper))
    return bounds


def _bounds(low: Tensor, low_alpha: Tensor, size: tuple[int, int]) -> Bounds:
    """Local bounds that are narrower near edges of alpha."""
    alpha = local_bounds(low_alpha, size, overshoot=0, near_side=FAR_SIDE)
    is_edge = alpha.upper - alpha.lower > EVEN_ALPHA * low_alpha.max()
    near, far = local_bounds(low, size, far_side=NEAR_EDGE_SIDE), local_bounds(low, size)
    return Bounds(torch.where(is_edge, near.lower, far.lower), torch.where(is_edge, near.upper, far.upper))


def _divided(on_black: Tensor, alpha: Tensor, elsewhere: Tensor) -> Tensor:
    """Divide premultiplied colors by alpha; `elsewhere` where alpha is 0."""
    return ((on_black + ALPHA_EPSILON * elsewhere) / (alpha + ALPHA_EPSILON)).clamp(0, 1)


def _widened(image: Tensor) -> Tensor:
    return image.to(torch.promote_types(image.dtype, torch.float32))
