"""Luminance, CIELAB, and colors at a given luminance; sRGB with white point D65 throughout."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from patchattn.extras import extra

__all__ = ["from_lab", "to_gray", "to_lab", "with_luminance"]

WEIGHTS = (0.2126, 0.7152, 0.0722)
"""Weights of linear red, green and blue in the luminance Y."""


def to_gray(rgb: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 1 height width"]:
    r"""Convert RGB to gray of the same luminance, sRGB-encoded.

    $$Y = 0.2126\,R + 0.7152\,G + 0.0722\,B, \qquad g = \operatorname{srgb}(Y)$$

    with R, G, B in linear light and srgb the curve that sRGB encodes with. So a gray file's samples and this are the
    same thing: their CIE luminance is srgb's inverse of g, and L* follows from that.

    Args:
        rgb: sRGB in [0, 1], as encoded in files.

    Raises:
        ValueError: `rgb` has another shape.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> to_gray(torch.tensor([0.0, 1.0, 0.0]).view(1, 3, 1, 1)).item()  # pure green
        0.862...
    """
    _check("rgb", rgb, 3)
    return _encoded(_luminance(_linear(rgb)))


def to_lab(rgb: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Convert sRGB to CIELAB: L* in [0, 100], a* and b* about 0.

    Args:
        rgb: sRGB in [0, 1], as encoded in files.

    Raises:
        ValueError: `rgb` has another shape.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> to_lab(torch.ones(1, 3, 1, 1)).flatten().round().abs()  # white
        tensor([100.,   0.,   0.])
    """
    _check("rgb", rgb, 3)
    with extra("tools"):
        from kornia.color import rgb_to_lab
    return rgb_to_lab(rgb)


def from_lab(lab: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
    """Convert CIELAB to sRGB, not clipped: colors out of gamut lie outside [0, 1].

    `with_luminance` brings them back at their brightness and hue.

    Args:
        lab: L*, a* and b*.

    Raises:
        ValueError: `lab` has another shape.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> from_lab(torch.tensor([100.0, 0.0, 0.0]).view(1, 3, 1, 1)).flatten().round(decimals=3)
        tensor([1., 1., 1.])
    """
    _check("lab", lab, 3)
    with extra("tools"):
        from kornia.color import lab_to_rgb
    return lab_to_rgb(lab, clip=False)


def with_luminance(
    rgb: Float[Tensor, "batch 3 height width"], gray: Float[Tensor, "batch 1 height width"]
) -> Float[Tensor, "batch 3 height width"]:
    r"""Set the luminance of `rgb` to that of `gray` exactly, keeping colors inside [0, 1] by reducing chroma.

    In linear light, with Y that of the gray and d how far a color is from the gray as bright as it:

    $$o = Y + t\,d, \qquad d = \text{rgb} - Y(\text{rgb})$$

    with the largest t in [0, 1], pixel by pixel, that keeps all channels in [0, 1]. As Y(d) = 0, any t keeps the
    luminance: `to_gray(with_luminance(rgb, gray)) == gray` but for rounding.

    Args:
        rgb: sRGB; it may lie outside [0, 1].
        gray: in [0, 1], as `to_gray` returns it.

    Returns:
        sRGB in [0, 1].

    Raises:
        ValueError: a shape is another, or the sizes differ.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
        >>> with_luminance(red, torch.zeros(1, 1, 1, 1)).flatten()  # black has one color only
        tensor([0., 0., 0.])
    """
    _check("rgb", rgb, 3)
    _check("gray", gray, 1)
    if gray.shape[2:] != rgb.shape[2:]:
        raise ValueError(f"gray: got size {tuple(gray.shape[2:])}, expected that of rgb, {tuple(rgb.shape[2:])}.")
    linear, luminance = _linear(rgb), _linear(gray)
    difference = linear - _luminance(linear)
    room = torch.where(difference > 0, 1 - luminance, luminance)
    smallest = torch.finfo(difference.dtype).tiny
    kept = (room / difference.abs().clamp(min=smallest)).amin(1, keepdim=True).clamp(max=1)
    return _encoded((luminance + kept * difference).clamp(0, 1))


def _luminance(linear: Tensor) -> Tensor:
    weights = torch.tensor(WEIGHTS, dtype=linear.dtype, device=linear.device).view(1, 3, 1, 1)
    return (linear * weights).sum(1, keepdim=True)


# Kornia's functions ask for three channels, which gray is not.
def _linear(encoded: Tensor) -> Tensor:
    with extra("tools"):
        from kornia.color import rgb_to_linear_rgb
    return rgb_to_linear_rgb(encoded.expand(-1, 3, -1, -1))[:, : encoded.shape[1]]


def _encoded(linear: Tensor) -> Tensor:
    with extra("tools"):
        from kornia.color import linear_rgb_to_rgb
    return linear_rgb_to_rgb(linear.expand(-1, 3, -1, -1))[:, : linear.shape[1]]


def _check(name: str, tensor: Tensor, channels: int) -> None:
    if tensor.ndim != 4 or tensor.shape[1] != channels or not tensor.is_floating_point():
        raise ValueError(
            f"{name}: got shape {tuple(tensor.shape)} of {tensor.dtype}; "
            f"expected floats of shape (batch, {channels}, height, width)."
        )
