"""Conversion of high dynamic range and wide color to BT.709."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["DISPLAYED", "describe", "to_bt709"]

BT2020, P3 = 9, 12
PQ, HLG = 16, 18
"""Code points of transfer characteristics (H.273)."""
TO_BT709 = {
    BT2020: ((1.660491, -0.587641, -0.072850), (-0.124550, 1.132900, -0.008349), (-0.018151, -0.100579, 1.118730)),
    P3: ((1.224940, -0.224940, 0.0), (-0.042057, 1.042057, 0.0), (-0.019638, -0.078636, 1.098274)),
}
"""Matrices from other primaries to BT.709 in linear light; all have white point D65."""
REFERENCE_WHITE = 203.0
"""Luminance of reference white in cd/m2, for PQ and for HLG on a display of 1,000 cd/m2 (ITU-R BT.2408)."""
PEAK = 1000.0 / REFERENCE_WHITE
KNEE = 0.8
"""Share of white above which light is compressed, so that `PEAK` times white becomes white."""
DISPLAY_GAMMA = 2.4


class _Displayed:
    """Set of pairs of primaries and transfer characteristics that have to be converted."""

    def __contains__(self, pair: object) -> bool:
        return isinstance(pair, tuple) and (pair[0] in TO_BT709 or pair[1] in (PQ, HLG))


DISPLAYED = _Displayed()


def describe(primaries: int, curve: int) -> str | None:
    """Describe the conversion for a message; None if there is none."""
    colors = {BT2020: "the colors of BT.2020", P3: "the colors of Display P3"}.get(primaries)
    light = {PQ: "high dynamic range (PQ)", HLG: "high dynamic range (HLG)"}.get(curve)
    return " and ".join(part for part in (light, colors) if part) or None


def to_bt709(color: Tensor, primaries: int, curve: int) -> Tensor:
    """Convert RGB of other primaries or transfer functions to BT.709 for a standard dynamic range display.

    Args:
        color: (3, height, width) in [0, 1].
        primaries, curve: H.273's numbers; those that need no conversion leave `color` as it is.

    Example:
        >>> white = torch.full((3, 1, 1), 0.5806)  # 203 cd/m2 in PQ
        >>> bool((to_bt709(white, 9, 16) > 0.9).all()), to_bt709(white, 1, 1) is white
        (True, True)
    """
    if (primaries, curve) not in DISPLAYED:
        return color
    light = {PQ: _light_of_pq, HLG: _light_of_hlg}.get(curve, _light_of_display)(color)
    if primaries in TO_BT709:
        light = torch.einsum("ij,jhw->ihw", torch.tensor(TO_BT709[primaries], dtype=light.dtype), light).clamp(min=0)
    if curve in (PQ, HLG):
        light = _compressed(light)
    return light.clamp(0, 1) ** (1 / DISPLAY_GAMMA)


def _light_of_display(color: Tensor) -> Tensor:
    return color**DISPLAY_GAMMA


def _light_of_pq(color: Tensor) -> Tensor:
    """Convert PQ (SMPTE ST 2084) to linear light relative to reference white."""
    root = color ** (1 / 78.84375)
    share = ((root - 0.8359375).clamp(min=0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
    return share * (10000.0 / REFERENCE_WHITE)


def _light_of_hlg(color: Tensor) -> Tensor:
    """Convert HLG (ITU-R BT.2100) to linear light relative to reference white on a display of 1,000 cd/m2."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = torch.where(color <= 0.5, color**2 / 3, (torch.exp((color - c) / a) + b) / 12)
    luminance = torch.einsum("j,jhw->hw", torch.tensor((0.2627, 0.6780, 0.0593), dtype=scene.dtype), scene)
    return scene * luminance.clamp(min=1e-9) ** 0.2 * PEAK


def _compressed(light: Tensor) -> Tensor:
    """Compress the brightest channel below 1 and the others in proportion, so that hues are kept."""
    brightest = light.amax(0, keepdim=True)
    over = (brightest - KNEE).clamp(min=0) / (PEAK - KNEE)
    # Of slope 1 at the knee, and 1 at the peak.
    slope = (PEAK - KNEE) / (1 - KNEE)
    target = torch.where(brightest > KNEE, KNEE + (1 - KNEE) * (slope * over / (1 + (slope - 1) * over)), brightest)
    return light * (target / brightest.clamp(min=1e-9))
