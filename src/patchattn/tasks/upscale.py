"""Pictures enlarged, with the detail that their own patches have at other sizes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from patchattn.checks import check_count, check_finite, check_positive
from patchattn.tasks.alpha import enlarge_with_alpha, visible_color
from patchattn.tasks.images import Image
from patchattn.tasks.peak_memory import peak_memory
from patchattn.tasks.recurrence import Recurrence
from patchattn.tasks.resampling import resize

__all__ = ["SCALES", "Upscaling", "UpscalingModel", "check_settings", "upscale"]

SCALES = (2, 3, 4)
LUMA = (0.299, 0.587, 0.114)
"""What red, green and blue add to the brightness that the eye sees detail in (BT.601, as encoded in files)."""


class UpscalingModel(Protocol):
    """What enlarges in the place of patches: a trained network, or what is called alike."""

    @property
    def scale(self) -> int:
        """How many times it enlarges."""

    def enlarge(
        self, picture: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 high_height high_width"]:
        """Enlarge RGB in [0, 1], in both dimensions."""


@dataclass(frozen=True)
class Upscaling:
    """An enlarged picture, and what it took."""

    picture: Image
    """As the picture was in everything but its size."""
    seconds: float
    """Wall time; the first run ever on a machine also compiles the kernels."""
    peak_memory: int | None
    """Peak resident memory of the whole process so far, in bytes; None where the system does not tell."""


def upscale(
    picture: Image | Tensor,
    scale: int = 2,
    *,
    patch_size: int = 5,
    k: int = 4,
    temperature: float = 0.05,
    seed: int = 0,
    network: UpscalingModel | None = None,
    progress: Callable[[str], None] | None = None,
) -> Upscaling:
    r"""Enlarge a picture 2, 3 or 4 times, with detail found in the picture itself.

    What is seen in a picture is seen in it again, larger and smaller (Glasner et al. 2009): the low picture l holds
    what its enlargement h should look like. In four steps of the ratio r = scale^(1/4), each from the h of the last,

    $$h \leftarrow \uparrow_r h, \qquad
      h \leftarrow h + A(h;\; \uparrow_r \downarrow_r l;\; l - \uparrow_r \downarrow_r l), \qquad
      h \leftarrow \tfrac{1}{2} h + \tfrac{1}{2} A(h;\, l;\, l)$$

    where A(query; key; value) is `patch_attention(aggregate=True)` and the arrows are bicubic. The first attention asks
    which patches of l look like h once they are blurred, and adds what blurring took from them; the second asks which
    look like h as they are, and goes half the way to them. After each, h is changed so that it becomes l when it is
    made smaller (back-projection).

    At last the same is done to the colors, and to what a network gives, within the range of the low pixels nearby
    (`local_bounds`): hard edges do not ring, and what is flat keeps its color exactly. But for the hardest edges,
    which only ringing could make exact, the result made smaller again is the picture.

    All this is of the brightness; colors are enlarged by bicubic interpolation and get its detail. Every patch is
    looked for in the whole picture, for a band of rows at a time; the bands leave no seams. Time and memory go with the
    number of pixels (docs/upscale.md).

    Args:
        picture: a `Image`, or a tensor (1, 1 or 3, height, width) in [0, 1], of any size. Alpha is enlarged by
            bicubic interpolation and back-projection. Colors are weighed by it: they are those of the picture as it is
            seen, before any background, and what is stored under transparent pixels has no part
            (`enlarge_with_alpha`).
        scale: 2, 3 or 4.
        patch_size: odd side of the patches, in pixels. 5 was best on buildings, 3 is as good on other things.
        k: matches of each patch; those of its neighbors vote as well.
        temperature: of the votes, for the sum of squared differences over a patch of brightness in [0, 1].
        seed: of the search's random choices.
        network: enlarges RGB instead of patches, of which nothing said above counts then. Gray is enlarged as RGB.
        progress: called with the name of each stage as it begins: "step 1 of 4" and so on, or "running the network".

    Returns:
        The enlarged picture, time and memory.

    Raises:
        ValueError: an argument is out of range, the picture holds NaN, or the network is for another scale.

    Example:
        >>> stripes = (torch.arange(48) // 6 % 2).float().expand(1, 1, 32, 48)
        >>> result = upscale(stripes, 2)
        >>> result.picture.size
        (64, 96)
    """
    picture = picture if isinstance(picture, Image) else Image(picture)
    check_finite("picture", picture.color, picture.alpha)
    check_settings(scale, patch_size, k, temperature, seed)
    if network is not None and network.scale != scale:
        raise ValueError(f"scale: got {scale}, and the network enlarges {network.scale} times; expected the same.")
    report = progress if progress is not None else _silent

    began = time.perf_counter()
    with torch.no_grad():
        guide = visible_color(picture)
        if network is None:
            high = _enlarged(guide, scale, Recurrence(patch_size, k, temperature, seed), report)
        else:
            report("running the network")
            high = _asked(guide, network)
        color, alpha = enlarge_with_alpha(high, picture)
        enlarged = replace(
            picture,
            color=color.to(picture.color.dtype),
            alpha=None if alpha is None or picture.alpha is None else alpha.to(picture.alpha.dtype),
        )
    return Upscaling(enlarged, time.perf_counter() - began, peak_memory())


def check_settings(scale: int, patch_size: int, k: int, temperature: float, seed: int) -> None:
    """Refuse what `upscale` would, before any picture is there."""
    if not isinstance(scale, int) or scale not in SCALES:
        raise ValueError(f"scale: got {scale!r}; allowed are 2, 3 and 4.")
    check_count("patch_size", patch_size, 1)
    if patch_size % 2 == 0:
        raise ValueError(f"patch_size: expected an odd number (a patch has a center), got {patch_size}.")
    check_count("k", k, 1)
    check_positive("temperature", temperature)
    check_count("seed", seed, 0)


def _enlarged(color: Tensor, scale: int, recurrence: Recurrence, report: Callable[[str], None]) -> Tensor:
    brightness = _brightness(color)
    size = _times(scale, color)
    detail = recurrence.enlarge(brightness, scale, report) - resize(brightness, size)
    # The same for red, green and blue: a change of brightness alone.
    return resize(color, size) + detail


def _asked(color: Tensor, network: UpscalingModel) -> Tensor:
    high = network.enlarge(color.expand(-1, 3, -1, -1))
    expected = (*color.shape[:1], 3, *_times(network.scale, color))
    if tuple(high.shape) != expected:
        raise ValueError(f"network: it enlarged to shape {tuple(high.shape)}; expected {expected}.")
    return high if color.shape[1] == 3 else high.mean(1, keepdim=True)


def _brightness(color: Tensor) -> Tensor:
    if color.shape[1] == 1:
        return color
    weights = torch.tensor(LUMA, dtype=color.dtype, device=color.device).view(1, 3, 1, 1)
    return (color * weights).sum(1, keepdim=True)


def _times(scale: int, image: Tensor) -> tuple[int, int]:
    return scale * image.shape[2], scale * image.shape[3]


def _silent(stage: str) -> None:
    pass
