"""Foreground and background colors of a mask: light on dark, or painted on a gray background."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Tones", "describe", "matches", "only_tone", "two_tones"]

MIN_CHROMA = 0.25
"""Difference between a pixel's largest and smallest channel from which it counts as colored rather than gray."""
MAX_LINE_DISTANCE = 0.2
"""Largest distance from the line between foreground and background color at which a color is a mixture of both."""
MAX_OTHER = 0.5
"""Largest share of pixels that are no mixture, relative to the painted ones: JPEG's soft chroma at edges stays
below."""
MAX_OTHER_FLAT = 0.02
"""The same for a single color: more is a third color, painted on purpose."""
MAX_DARKER = 0.005
"""Largest share of pixels darker than the background, as JPEG noise is."""
MIN_CONTRAST = 0.1
"""Smallest contrast between the two tones, relative to the lightest color."""
TONE_TOLERANCE = 0.06
"""Colors that differ by less in every channel count as one."""
COLOR_TOLERANCE = 40 / 255
"""Largest difference in any channel at which a color matches a given one."""
MAX_LABELS = 32
"""Largest number of colors in a label map, in which a given color is matched by the nearest one only."""
HISTOGRAM_LEVELS = 16
"""Levels per channel of the histogram of main colors."""
NAMES = {
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
}


@dataclass(frozen=True)
class Tones:
    """Two colors (foreground and background) of which all others are mixtures."""

    share: Tensor
    """Share of the foreground color in each pixel, (pixels,)."""
    paint: Tensor
    ground: Tensor
    mixed: float
    """Share of the pixels that are clearly neither color."""

    def share_of(self, given: Tensor) -> Tensor | None:
        """Share of a given color in each pixel; None if it is neither tone, or the tones are too similar."""
        paint, ground = (float((tone - given).abs().amax()) for tone in (self.paint, self.ground))
        if min(paint, ground) > COLOR_TOLERANCE or max(paint, ground) <= 2 * COLOR_TOLERANCE:
            return None
        return self.share if paint < ground else 1 - self.share


def two_tones(color: Tensor, weight: Tensor) -> Tones | None:
    """Find the colors of a shape and its background; None if there are not exactly two.

    Of grays the lighter one is the shape's; of a color and a gray, the color.

    Args:
        color: (pixels, 3).
        weight: (pixels,), how well each is seen.
    """
    # Levels of 0 and 1 are as good as 0 and 255.
    largest = color.max().clamp(min=1e-6)
    color = color / largest
    colorful = color.amax(1) - color.amin(1) > MIN_CHROMA
    found = _paint_on_gray(color, colorful, weight) if colorful.any() else _light_on_dark(color, weight)
    if found is None:
        return None
    share, paint, ground = found
    mixed = weight * ((share > 0.1) & (share < 0.9))
    return Tones(share, paint * largest, ground * largest, float(mixed.sum() / weight.sum()))


def _light_on_dark(color: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    gray = color.mean(1)
    darkest, lightest = gray.min(), gray.max()
    if lightest - darkest < MIN_CONTRAST:
        return None
    # Not the extremes, but the commonest levels of the darker and of the lighter half: noise of JPEG overshoots.
    steps = ((gray - darkest) / (lightest - darkest) * 255).round().long()
    found = torch.bincount(steps, weight, minlength=256)
    low, high = (darkest + (lightest - darkest) * at / 255 for at in (found[:128].argmax(), 128 + found[128:].argmax()))
    if (weight * (gray < low - 0.1 * (high - low))).sum() > MAX_DARKER * weight.sum():
        return None
    return ((gray - low) / (high - low)).clamp(0, 1), high.expand(3), low.expand(3)


def _paint_on_gray(color: Tensor, colorful: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    if colorful.all():
        return None
    paint, ground = (_commonest(color[these], weight[these]) for these in (colorful, ~colorful))
    step = paint - ground
    share = (color - ground) @ step / step.square().sum()
    off = (color - ground - share[:, None] * step).norm(dim=1) > MAX_LINE_DISTANCE
    other, painted = weight * off, (weight * (share > 0.5) * ~off).sum()
    flat = torch.zeros(()) if not off.any() else torch.bincount(_bins(color[off]), weight[off]).max()
    if other.sum() > MAX_OTHER * painted or flat > MAX_OTHER_FLAT * painted:
        return None
    return share.clamp(0, 1), paint, ground


def only_tone(color: Tensor, weight: Tensor) -> bool:
    """Return whether all clearly visible pixels have one color; half-transparent rims may have any."""
    clear = weight > 0.98 * weight.max()
    far = (color - _commonest(color, weight)).abs().amax(1) > TONE_TOLERANCE
    return not (clear & far).any()


def matches(color: Tensor, given: Tensor) -> Tensor:
    """Mask of the pixels of a given color."""
    far = (color - given).abs().amax(1)
    packed = (color * 255).round().long() @ torch.tensor([65536, 256, 1], device=color.device)
    if len(packed.sort().values.diff().nonzero()) < MAX_LABELS:
        return (far == far.min()) & (far <= COLOR_TOLERANCE)
    return far <= COLOR_TOLERANCE


def describe(color: Tensor, alpha: Tensor) -> str:
    """Describe the main colors with their shares: `"black 91.2 %, #ff8000 8.8 %"`."""
    pixels, seen = len(color), alpha > 0
    parts = [] if seen.all() else [f"transparent {_percent(1 - float(seen.float().mean()))}"]
    color = color[seen]
    listed, bins = 0, _bins(color)
    for bin_ in torch.bincount(bins, minlength=HISTOGRAM_LEVELS**3).topk(4).indices:
        inside = bins == bin_
        if (count := int(inside.sum())) > 0.0005 * pixels:
            parts.append(f"{_name(color[inside].mean(0))} {_percent(count / pixels)}")
            listed += count
    if listed < 0.98 * len(color):
        parts.append("and many other colors")
    return ", ".join(parts)


def _commonest(color: Tensor, weight: Tensor) -> Tensor:
    bins = _bins(color)
    inside = bins == torch.bincount(bins, weight).argmax()
    return (color[inside] * weight[inside, None]).sum(0) / weight[inside].sum()


def _bins(color: Tensor) -> Tensor:
    return (color * (HISTOGRAM_LEVELS - 1)).round().long() @ torch.tensor(
        [HISTOGRAM_LEVELS**2, HISTOGRAM_LEVELS, 1], device=color.device
    )


def _name(color: Tensor) -> str:
    levels = tuple(int(level) for level in (color * 255).round())
    near = (name for name, known in NAMES.items() if max(abs(a - b) for a, b in zip(levels, known, strict=True)) < 3)
    # Label maps of 0 and 1 look black: their levels are distinguished by number.
    return next(
        (name for name in near if levels == NAMES[name] or min(levels) > 3), "#{:02x}{:02x}{:02x}".format(*levels)
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
