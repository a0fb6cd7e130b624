"""A gray picture colored after another by attention."""

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
from patchattn.tasks.images import Image
from patchattn.tasks.peak_memory import peak_memory

__all__ = ["Colorization", "colorize"]

SIGMAS = (4.0, 16.0)
"""How wide the neighborhoods are whose brightness and contrast count, in pixels of the reduced picture."""
BRIGHTNESS, CONTRAST = 0.5, 1.0
"""What their mean and their standard deviation weigh beside gray itself."""


@dataclass(frozen=True)
class Colorization:
    """A colored picture, and what it came from."""

    picture: Image
    """Of the target's size, bit depth, alpha and luminance, in RGB."""
    field: MatchField | None
    """The k matches of every pixel of the reduced target in the reduced reference; None where a network colored."""
    seconds: float
    """Wall time; the first run ever on a machine also compiles the kernels."""
    peak_memory: int | None
    """Peak resident memory of the whole process so far, in bytes; None where the system does not tell."""


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
    r"""Color `gray` as what looks like it in `reference` is colored.

    $$(a^*, b^*)_i = \frac{\sum_{j \in \text{matches}(i)} e^{s(i, j) / T} \, (a^*, b^*)_j}
                          {\sum_{j \in \text{matches}(i)} e^{s(i, j) / T}}, \qquad
      s(i, j) = -\sum_{o \in \text{patch}} \lVert f_{i + o} - g_{j + o} \rVert^2$$

    Queries are patches of the target, keys patches of the reference, and values the reference's a* and b* of CIELAB.
    The features f and g know no color: gray, and the mean and the standard deviation of two wider neighborhoods,
    which tell grass from sky where a patch of gray alone would not. They are compared on pictures reduced by `scale`,
    and every match brings its block of scale x scale colors, so that colors have the full size. Nothing says where in
    the picture a match should lie.

    The target's luminance is kept exactly, to the last bit but for rounding: where a color has no place at it, it is
    made paler (`with_luminance`). A colored target counts by its luminance alone. Size, bit depth and alpha are the
    target's.

    Both pictures count as what their color profiles, or the color chunks of PNG, say they show, and are converted to
    sRGB: the target is shown as bright as before. The result is sRGB, and says so by a profile if either picture had
    one. In both pictures blocks are reduced as they are seen, weighed by alpha, and what is stored under transparent
    pixels has no part.

    Args:
        gray: the picture to color: a `Image`, or a tensor (1, 1 or 3, height, width) in [0, 1].
        reference: the picture to take colors from, of any size; three channels. One that shows no color (R = G = B)
            gives none, nor do pixels that are transparent.
        k: matches of each pixel; where the reduced reference has fewer pixels, all of them.
        patch_size: odd side of the patches, in pixels of the reduced pictures.
        aggregate: let the matches of the neighbors in the patch vote too (PSAL's equation (10)): far fewer stray
            colors.
        temperature: T above; smaller weighs the best match more.
        scale: by how much both pictures are reduced for the comparison, or for the network. None: 2; for a network with
            an attribute `size`, as much as brings the target's longer side down to it.
        method: how matches are found; see `match`.
        iterations: of the search. None: the method's own default.
        seed: of the search's random choices.
        init: the field of an earlier frame of this size, from which the search starts; see `match`.
        network: colors instead of attention: called as `network(gray, reference)` with the reduced pictures,
            (1, 1, height, width) and (1, 3, height2, width2) in [0, 1], it returns RGB (1, 3, height, width), whose a*
            and b* are enlarged. Of the other settings, only `scale` counts then.
        progress: called with the name of each stage as it begins: "matching" and "attending" or "running the network",
            then "coloring".

    Returns:
        The colored picture, the field, time and memory.

    Raises:
        ValueError: a tensor is no picture or holds NaN, the reference has one channel and so no colors or is wholly
            transparent, a picture's colors are of an encoding that no profile tells (PQ, HLG), or an argument is none
            that `match` and `patch_attention` allow.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> picture = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
        >>> result = colorize(to_gray(picture), picture, k=1, patch_size=5, scale=1, aggregate=False, method="exact")
        >>> bool((result.picture.color - picture).abs().max() < 0.01)
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
            chroma, field = _asked(target, source, network, scale), None
        report("coloring")
        height, width = luminance.shape[2:]
        lightness = to_lab(luminance.expand(-1, 3, -1, -1))[:, :1]
        color = with_luminance(from_lab(torch.cat([lightness, chroma[:, :, :height, :width]], 1)), luminance)
    return Colorization(
        picture=replace(gray, color=color, icc_profile=srgb_profile() if tagged else None),
        field=field,
        seconds=time.perf_counter() - began,
        peak_memory=peak_memory(),
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
    """Return the a* and b* that attention gives, in whole blocks, and the field."""
    lab = to_lab(source.color)
    gray = replace(source, color=to_gray(source.color))
    query, key = (_features(_reduced(picture, scale)) for picture in (target, gray))
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


def _asked(target: Image, source: Image, network: nn.Module, scale: int) -> Tensor:
    """Return the a* and b* of what a network makes of the reduced pictures, in whole blocks."""
    colored = network(_reduced(target, scale), _reduced(source, scale))
    chroma = to_lab(colored.clamp(0, 1))[:, 1:]
    return F.interpolate(chroma, scale_factor=scale, mode="bilinear", align_corners=False)


def _features(gray: Tensor) -> Tensor:
    """Gray, and the weighted means and standard deviations of its neighborhoods."""
    parts = [gray]
    for sigma in SIGMAS:
        mean = _blurred(gray, sigma)
        # The blur of a square is not below zero, but its rounding may be.
        deviation = _blurred((gray - mean) ** 2, sigma).clamp(min=0).sqrt()
        parts += [BRIGHTNESS * mean, CONTRAST * deviation]
    return torch.cat(parts, 1)


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    with extra("tools"):
        from kornia.filters import gaussian_blur2d
    side = 2 * round(3 * sigma) + 1
    return gaussian_blur2d(picture, (side, side), (sigma, sigma), border_type="replicate")


def _reduced(picture: Image, scale: int) -> Tensor:
    """The means of blocks, weighed by alpha; plain ones where nothing is seen."""
    color = _whole_blocks(picture.color, scale)
    mean = F.avg_pool2d(color, scale)
    if picture.alpha is None:
        return mean
    alpha = _whole_blocks(picture.alpha, scale)
    share = F.avg_pool2d(alpha, scale)
    return torch.where(share > 0, F.avg_pool2d(alpha * color, scale) / torch.where(share > 0, share, 1), mean)


def _seen_blocks(picture: Image, scale: int) -> Tensor | None:
    """The blocks in which something is seen, (1, height, width), for matches; None: all of them."""
    if picture.alpha is None:
        return None
    seen = visible(picture.alpha).to(picture.alpha.dtype)
    return F.max_pool2d(_whole_blocks(seen, scale), scale)[:, 0] > 0


def _whole_blocks(picture: Tensor, scale: int) -> Tensor:
    """Repeat the last row and column until the size is a multiple of `scale`."""
    height, width = picture.shape[2:]
    return F.pad(picture, (0, -width % scale, 0, -height % scale), mode="replicate")


def _silent(stage: str) -> None:
    pass
