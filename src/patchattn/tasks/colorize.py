"""Colorization of a gray image from a reference image, by attention."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchattn.attention import patch_attention
from patchattn.checks import check_count, check_finite
from patchattn.extras import extra
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.tasks.alpha import check_visible, visible, visible_color
from patchattn.tasks.color_profiles import profile_of, srgb_profile, to_srgb
from patchattn.tasks.colors import from_lab, to_gray, to_lab, with_luminance
from patchattn.tasks.deprecated import ImageResult
from patchattn.tasks.images import Image

__all__ = ["Colorization", "colorize"]

SIGMAS = (4.0, 16.0)
"""Standard deviations of the Gaussian neighborhoods for brightness and contrast, in pixels of the downsampled image."""
BRIGHTNESS, CONTRAST = 0.5, 1.0
"""Weights of their mean and standard deviation, relative to gray itself."""


@dataclass(frozen=True)
class Colorization(ImageResult):
    """Result of `colorize`."""

    image: Image
    """Colored RGB image with the target's size, bit depth, alpha and luminance."""
    field: MatchField | None
    """Matches of every pixel of the downsampled target in the downsampled reference; None if a network was used."""
    seconds: float
    """Wall time; the first run ever on a machine may also compile the kernels."""


def colorize(
    gray: Image | Tensor,
    reference: Image | Tensor,
    *,
    k: int = 3,
    patch_size: int = 11,
    aggregate: bool = True,
    temperature: float = 1.0,
    scale: int | None = None,
    method: str = "auto",
    iterations: int | None = None,
    seed: int = 0,
    init: MatchField | None = None,
    network: nn.Module | None = None,
    progress: Callable[[str], None] | None = None,
) -> Colorization:
    r"""Color a gray image with the colors of similar patches in a reference image.

    $$(a^*, b^*)_i = \frac{\sum_{j \in \text{matches}(i)} e^{s(i, j) / T} \, (a^*, b^*)_j}
                          {\sum_{j \in \text{matches}(i)} e^{s(i, j) / T}}, \qquad
      s(i, j) = -\sum_{o \in \text{patch}} \lVert f_{i + o} - g_{j + o} \rVert^2$$

    Queries are patches of the target, keys patches of the reference, and values the reference's a* and b* of CIELAB.
    The features f and g contain no color: they are gray, and the mean and standard deviation of two wider
    neighborhoods, which distinguish grass from sky where a patch of gray alone would not. They are compared on images
    downsampled by `scale`, and every match brings its block of scale x scale colors, so that colors have the full
    resolution. A match may lie anywhere in the image.

    The target's luminance is kept exactly, up to rounding: colors out of gamut at that luminance are desaturated
    (`with_luminance`). Of a colored target only the luminance is used. Size, bit depth and alpha are the target's.

    Both images are converted to sRGB from their color profiles, or the color chunks of PNG, so that the target looks as
    bright as before. The result is sRGB, with a profile if either image had one. Downsampling is weighted by alpha, so
    that colors stored under transparent pixels have no influence.

    Args:
        gray: the image to color: an `Image`, or a tensor (1, 1 or 3, height, width) in [0, 1].
        reference: the image to take colors from, of any size, with three channels. Transparent pixels are not used.
        k: matches of each pixel; at most the number of pixels of the downsampled reference.
        patch_size: odd side of the patches, in pixels of the downsampled images.
        aggregate: let the matches of the neighbors in the patch vote too (PSAL's equation (10)): far fewer stray
            colors.
        temperature: T above; smaller weighs the best match more.
        scale: downsampling factor of both images for the comparison, or for the network. None: 2; for a network with an
            attribute `size`, the factor that brings the target's longer side down to it.
        method: how matches are found; see `match`.
        iterations: of the search. None: the method's own default.
        seed: of the search's random choices.
        init: the field of an earlier frame of this size, from which the search starts; see `match`.
        network: a network to color with instead of attention. It is called as `network(gray, reference)` with the
            downsampled images, (1, 1, height, width) and (1, 3, height2, width2) in [0, 1], and returns RGB (1, 3,
            height, width), whose a* and b* are enlarged. Of the other settings, only `scale` applies then.
        progress: called with the name of each stage as it begins: "matching" and "attending" or "running the network",
            then "coloring".

    Returns:
        The colored image, the field, and the time.

    Raises:
        ValueError: a tensor is no image or holds NaN, the reference has one channel and so no colors or is wholly
            transparent, an image's encoding has no profile (PQ, HLG), or an argument is none
            that `match` and `patch_attention` allow.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> image = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
        >>> result = colorize(to_gray(image), image, k=1, patch_size=5, scale=1, aggregate=False, method="exact")
        >>> bool((result.image.color - image).abs().max() < 0.01)
        True
    """
    gray = gray if isinstance(gray, Image) else Image(gray)
    reference = reference if isinstance(reference, Image) else Image(reference)
    if reference.color.shape[1] == 1:
        raise ValueError("reference: it has one channel, gray; expected three, to take colors from.")
    check_finite("gray", gray.color, gray.alpha)
    check_finite("reference", reference.color, reference.alpha)
    check_visible("reference", reference)
    report = progress if progress is not None else _silent

    began = time.perf_counter()
    with torch.no_grad():
        tagged = profile_of(gray, argument="gray") or profile_of(reference, argument="reference")
        gray, reference = to_srgb(gray), to_srgb(reference)
        luminance = gray.color if gray.color.shape[1] == 1 else to_gray(gray.color)
        scale = _usual_scale(luminance, network) if scale is None else scale
        check_count("scale", scale, 1)
        target = Image(visible_color(Image(luminance, gray.alpha)), gray.alpha)
        source = replace(reference, color=visible_color(reference))
        if network is None:
            search = {"method": method, "iterations": iterations, "seed": seed, "init": init}
            attention = {"aggregate": aggregate, "temperature": temperature}
            chroma, field = _attended(target, source, k, patch_size, scale, search, attention, report)
        else:
            report("running the network")
            chroma, field = _run_network(target, source, network, scale), None
        report("coloring")
        height, width = luminance.shape[2:]
        lightness = to_lab(luminance.expand(-1, 3, -1, -1))[:, :1]
        color = with_luminance(from_lab(torch.cat([lightness, chroma[:, :, :height, :width]], 1)), luminance)
    return Colorization(
        image=replace(gray, color=color, icc_profile=srgb_profile() if tagged else None),
        field=field,
        seconds=time.perf_counter() - began,
    )


def _attended(
    target: Image,
    source: Image,
    k: int,
    patch_size: int,
    scale: int,
    search: dict[str, Any],
    attention: dict[str, Any],
    report: Callable[[str], None],
) -> tuple[Tensor, MatchField]:
    """Attend to the reference's a* and b*; returns them in whole blocks, and the field."""
    lab = to_lab(source.color)
    gray = replace(source, color=to_gray(source.color))
    query, key = (_features(_reduced(image, scale)) for image in (target, gray))
    patches: dict[str, Any] = {"patch_size": patch_size, "padding_mode": "replicate"}
    report("matching")
    check_count("k", k, 1)
    field = match(query, key, k=min(k, key[0, 0].numel()), key_mask=_seen_blocks(source, scale), **patches, **search)
    report("attending")
    return patch_attention(query, key, _whole_blocks(lab[:, 1:], scale), field=field, **patches, **attention), field


def _usual_scale(luminance: Tensor, network: nn.Module | None) -> int:
    if network is None:
        return 2
    learned: int | None = getattr(network, "size", None)
    return 1 if learned is None else ceil(max(luminance.shape[2:]) / learned)


def _run_network(target: Image, source: Image, network: nn.Module, scale: int) -> Tensor:
    """Run the network on the downsampled images; returns a* and b* in whole blocks."""
    colored = network(_reduced(target, scale), _reduced(source, scale))
    chroma = to_lab(colored.clamp(0, 1))[:, 1:]
    return F.interpolate(chroma, scale_factor=scale, mode="bilinear", align_corners=False)


def _features(gray: Tensor) -> Tensor:
    """Features of a gray image: gray itself, and weighted local means and standard deviations."""
    parts = [gray]
    for sigma in SIGMAS:
        mean = _blurred(gray, sigma)
        # The blur of a square is not below zero, but its rounding may be.
        deviation = _blurred((gray - mean) ** 2, sigma).clamp(min=0).sqrt()
        parts += [BRIGHTNESS * mean, CONTRAST * deviation]
    return torch.cat(parts, 1)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    with extra("tools"):
        from kornia.filters import gaussian_blur2d
    side = 2 * round(3 * sigma) + 1
    return gaussian_blur2d(image, (side, side), (sigma, sigma), border_type="replicate")


def _reduced(image: Image, scale: int) -> Tensor:
    """Downsample by block means weighted by alpha; plain means where alpha is 0."""
    color = _whole_blocks(image.color, scale)
    mean = F.avg_pool2d(color, scale)
    if image.alpha is None:
        return mean
    alpha = _whole_blocks(image.alpha, scale)
    share = F.avg_pool2d(alpha, scale)
    return torch.where(share > 0, F.avg_pool2d(alpha * color, scale) / torch.where(share > 0, share, 1), mean)


def _seen_blocks(image: Image, scale: int) -> Tensor | None:
    """Mask of the blocks with a visible pixel, (1, height, width); None: all."""
    if image.alpha is None:
        return None
    seen = visible(image.alpha).to(image.alpha.dtype)
    return F.max_pool2d(_whole_blocks(seen, scale), scale)[:, 0] > 0


def _whole_blocks(image: Tensor, scale: int) -> Tensor:
    """Pad by repeating the last row and column until the size is a multiple of `scale`."""
    height, width = image.shape[2:]
    return F.pad(image, (0, -width % scale, 0, -height % scale), mode="replicate")


def _silent(stage: str) -> None:
    pass
