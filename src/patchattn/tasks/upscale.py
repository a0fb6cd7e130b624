"""Super-resolution with detail from the image's own patches at other scales."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from patchattn.checks import check_count, check_finite, check_positive
from patchattn.deprecation import renamed_argument
from patchattn.tasks.alpha import enlarge_with_alpha, visible_color
from patchattn.tasks.deprecated import ImageResult
from patchattn.tasks.images import Image
from patchattn.tasks.resampling import resize
from patchattn.tasks.self_similarity import SelfSimilarityUpscaler

__all__ = ["SCALES", "Upscaling", "UpscalingModel", "check_settings", "upscale"]

SCALES = (2, 3, 4, 8, 16)
CASCADES = {8: (2, 4), 16: (2, 2, 4)}
"""Scales beyond 4 as one enlargement after another, each of the result before it.

The other way round (4, 2) is 0.12 dB less on Set5, two steps of 4 instead of three 0.10 dB less."""
LUMA = (0.299, 0.587, 0.114)
"""Luma weights of red, green and blue (BT.601, on encoded values)."""


class UpscalingModel(Protocol):
    """A network that enlarges images instead of patch search."""

    @property
    def scale(self) -> int:
        """Enlargement factor."""

    def enlarge(
        self, image: Float[Tensor, "batch 3 height width"], /
    ) -> Float[Tensor, "batch 3 high_height high_width"]:
        """Enlarge RGB in [0, 1], in both dimensions."""


@dataclass(frozen=True)
class Upscaling(ImageResult):
    """Result of `upscale`."""

    image: Image
    """Enlarged image, with the bit depth, profile and metadata of the input."""
    seconds: float
    """Wall time; the first run ever on a machine may also compile the kernels."""


@renamed_argument("picture", "image")
def upscale(
    image: Image | Tensor,
    scale: int = 2,
    *,
    patch_size: int = 5,
    k: int = 3,
    temperature: float = 0.1,
    seed: int = 0,
    network: UpscalingModel | None = None,
    progress: Callable[[str], None] | None = None,
) -> Upscaling:
    r"""Enlarge an image 2, 3, 4, 8 or 16 times, with detail from its own patches.

    Patches recur in an image at other scales (Glasner et al. 2009), so that the low-resolution image l contains the
    detail of its enlargement h. In three steps of the ratio r = scale^(1/3) (four for scales 3 and 4), each from the
    previous h,

    $$h \leftarrow \uparrow_r h, \qquad
      d, s = A(h;\; \uparrow_r \downarrow_r l;\; l - \uparrow_r \downarrow_r l,\, l), \qquad
      h \leftarrow \tfrac{1}{2} (h + d) + \tfrac{1}{2} s$$

    where A(query; key; values) is `patch_attention(aggregate=True)` on patches less two fifths of their local mean, and
    the arrows are bicubic. It finds patches of l that resemble h once they are blurred: d is the detail that blurring
    removed from them, and s is they themselves. After d and after s, back-projection makes h consistent with l. Every
    second patch is asked, as on a chessboard, and none where h is flat (a standard deviation below 3/255 in the patch).

    At the end the colors (or the output of a network) are back-projected too, clamped to the range of nearby
    low-resolution pixels (`local_bounds`): hard edges do not ring, and flat areas keep their color exactly. Except at
    the hardest edges, which only ringing could make exact, downsampling the result gives the image.

    This is done on luma; colors are enlarged by bicubic interpolation and get its detail. Every patch is searched in
    the whole image, one band of rows at a time; the bands leave no seams. Time and memory are linear in the number of
    pixels (docs/upscale.md).

    Args:
        image: an `Image`, or a tensor (1, 1 or 3, height, width) in [0, 1], of any size. Alpha is enlarged by
            bicubic interpolation and back-projection. Colors are weighted by alpha, so that those stored under
            transparent pixels have no influence (`enlarge_with_alpha`).
        scale: 2, 3, 4, 8 or 16; 8 is twice and then four times, 16 twice, twice and four times, each of the result
            before it. Networks enlarge by their own scale.
        patch_size: odd side of the patches, in pixels. 5 was best on buildings, 3 is as good on other things.
        k: matches of each patch; those of its neighbors vote as well.
        temperature: of the votes, for the sum of squared differences over a patch of luma in [0, 1].
        seed: of the search's random choices.
        network: a network to enlarge RGB with instead of patches; the description above does not apply then. Gray is
            enlarged as RGB.
        progress: called with the name of each stage as it begins: "step 1 of 3" and so on, or "running the network".

    Returns:
        The enlarged image, and the time.

    Raises:
        ValueError: an argument is out of range, the image holds NaN, or the network is for another scale.

    Example:
        >>> stripes = (torch.arange(48) // 6 % 2).float().expand(1, 1, 32, 48)
        >>> result = upscale(stripes, 2)
        >>> result.image.size
        (64, 96)
    """
    image = image if isinstance(image, Image) else Image(image)
    check_finite("image", image.color, image.alpha)
    check_settings(scale, patch_size, k, temperature, seed)
    if network is not None and network.scale != scale:
        raise ValueError(f"scale: got {scale}, and the network enlarges {network.scale} times; expected the same.")
    report = progress if progress is not None else _silent

    began = time.perf_counter()
    # Keys are prepared once, which tensors of inference mode do not allow.
    with torch.inference_mode(False), torch.no_grad():
        guide = visible_color(image)
        if network is None:
            high = _enlarged(guide, scale, SelfSimilarityUpscaler(patch_size, k, temperature, seed), report)
        else:
            report("running the network")
            high = _run_network(guide, network)
        color, alpha = enlarge_with_alpha(high, image)
        enlarged = replace(
            image,
            color=color.to(image.color.dtype),
            alpha=None if alpha is None or image.alpha is None else alpha.to(image.alpha.dtype),
        )
    return Upscaling(enlarged, time.perf_counter() - began)


def check_settings(scale: int, patch_size: int, k: int, temperature: float, seed: int) -> None:
    """Raise the errors of `upscale` about settings, before an image is read."""
    if not isinstance(scale, int) or scale not in SCALES:
        raise ValueError(f"scale: got {scale!r}; allowed are 2, 3, 4, 8 and 16.")
    check_count("patch_size", patch_size, 1)
    if patch_size % 2 == 0:
        raise ValueError(f"patch_size: expected an odd number (a patch has a center), got {patch_size}.")
    check_count("k", k, 1)
    check_positive("temperature", temperature)
    check_count("seed", seed, 0)


def _enlarged(color: Tensor, scale: int, recurrence: SelfSimilarityUpscaler, report: Callable[[str], None]) -> Tensor:
    brightness = _brightness(color)
    size = _times(scale, color)
    high = brightness
    for factor in CASCADES.get(scale, (scale,)):
        high = recurrence.enlarge(high, factor, report)
    detail = high - resize(brightness, size)
    # The same for red, green and blue: a change of brightness alone.
    return resize(color, size) + detail


def _run_network(color: Tensor, network: UpscalingModel) -> Tensor:
    high = network.enlarge(color.expand(-1, 3, -1, -1))
    expected = (*color.shape[:1], 3, *_times(network.scale, color))
    if tuple(high.shape) != expected:
        raise ValueError(f"network: it enlarged to shape {tuple(high.shape)}; expected {expected}.")
    return high if color.shape[1] == 3 else high.mean(1, keepdim=True)


def _brightness(color: Tensor) -> Tensor:
    if color.shape[1] == 1:
        return color
    # From green on, so that gray given as color is that gray exactly, and has the same matches.
    red, green, blue = (color[:, n : n + 1] for n in range(3))
    return green + LUMA[0] * (red - green) + LUMA[2] * (blue - green)


def _times(scale: int, image: Tensor) -> tuple[int, int]:
    return scale * image.shape[2], scale * image.shape[3]


def _silent(stage: str) -> None:
    pass
