"""Reconstruction of an image from another one by attention."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from patchattn.attention import patch_attention
from patchattn.checks import check_finite
from patchattn.field import MatchField
from patchattn.matching import match
from patchattn.search_methods import SearchMethod
from patchattn.settings import Method, PaddingMode, SimilarityName
from patchattn.similarity import Similarity
from patchattn.tasks.alpha import check_visible, visible, visible_color
from patchattn.tasks.color_profiles import profile_of, to_profile
from patchattn.tasks.deprecated import ImageResult
from patchattn.tasks.image_quality import mean_squared_error, peak_signal_noise_ratio
from patchattn.tasks.images import Image, same_channels

__all__ = ["Reconstruction", "reconstruct"]


@dataclass(frozen=True)
class Reconstruction(ImageResult):
    """Result of `reconstruct`."""

    image: Image
    """Reconstructed image with the target's size, bit depth and alpha."""
    field: MatchField
    """Matches of every pixel."""
    mse: float
    """Mean squared error against the target over channels and visible pixels, for colors in [0, 1], before rounding."""
    psnr: float
    """Peak signal-to-noise ratio in dB, -10 log10(mse); infinite for a perfect copy."""
    seconds: float
    """Wall time of the search and the attention; the first run ever on a machine may also compile the kernels."""


def reconstruct(
    target: Image | Tensor,
    reference: Image | Tensor,
    *,
    k: int = 3,
    patch_size: int = 7,
    aggregate: bool = False,
    similarity: SimilarityName | Similarity = "l2",
    temperature: float = 1.0,
    method: Method | SearchMethod = "auto",
    iterations: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Reconstruction:
    r"""Reconstruct `target` from the pixels of `reference` (PSAL, Section 4.2).

    $$\hat{t}_i = \frac{\sum_{j \in \text{matches}(i)} e^{s(i, j) / T} \, r_j}
                       {\sum_{j \in \text{matches}(i)} e^{s(i, j) / T}}, \qquad
      s(i, j) = -\sum_{o \in \text{patch}} \lVert t_{i + o} - r_{j + o} \rVert^2$$

    Queries are the patches of the target, keys the patches of the reference, values its pixels. The two may differ in
    size, bit depth, color and alpha:

    - colors are compared in [0, 1], whatever the bit depths;
    - two gray images are compared in gray; if either has color, gray becomes R = G = B, and the result has color;
    - where the color profiles, or the color chunks of PNG, differ, the target is first converted to the reference's
      encoding (sRGB if it has none), which is also that of the result;
    - the result has the target's alpha; colors stored under transparent pixels (below 1/16 of the image's largest
      alpha) have no influence: in both images they are interpolated from visible ones, the reference's are not matched,
      and the target's do not count in the error.

    Patches at borders read reflected pixels (replicated ones where an image is too small for that).

    Args:
        target: the image to rebuild: an `Image`, or its colors as a tensor (1, 1 or 3, height, width) in [0, 1].
        reference: the image to take pixels from, of any size, likewise.
        k: matches of each pixel.
        patch_size: odd side of the patches, in pixels.
        aggregate: let the matches of the neighbors in the patch vote too (PSAL's equation (10)).
        similarity: how patches are compared; see `match`.
        temperature: T above; smaller weighs the best match more.
        method: how matches are found; see `match`.
        iterations: of the search. None: the method's own default.
        seed: of the search's random choices.
        progress: called with the name of each stage as it begins: "matching", "attending", "measuring".

    Returns:
        The image, its field, the error, and the time.

    Raises:
        ValueError: a tensor is no image or holds NaN, the reference is wholly transparent or has fewer than k pixels,
            or an argument is none that `match` and `patch_attention` allow.
        RuntimeError: the extra `tools` is not installed.

    Example:
        >>> target = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
        >>> result = reconstruct(target, target.flip(3), k=1, patch_size=1, method="exact")
        >>> result.mse
        0.0
    """
    target = target if isinstance(target, Image) else Image(target)
    reference = reference if isinstance(reference, Image) else Image(reference)
    for name, image in (("target", target), ("reference", reference)):
        check_finite(name, image.color, image.alpha)
    check_visible("reference", reference)
    target = _encoded_as(target, reference)
    query, key = same_channels(*(replace(one, color=visible_color(one)) for one in (target, reference)))
    if isinstance(k, int) and k > key[0, 0].numel():
        raise ValueError(f"k: got {k}, but the reference has only {key[0, 0].numel()} pixels.")
    border = _padding_mode(patch_size, query, key)
    report = progress if progress is not None else _silent

    began = time.perf_counter()
    with torch.no_grad():
        report("matching")
        field = match(
            query,
            key,
            k=k,
            patch_size=patch_size,
            similarity=similarity,
            method=method,
            iterations=iterations,
            seed=seed,
            key_mask=None if reference.alpha is None else visible(reference.alpha)[:, 0],
            padding_mode=border,
        )
        report("attending")
        color = patch_attention(
            query,
            key,
            key,
            k=k,
            patch_size=patch_size,
            similarity=similarity,
            temperature=temperature,
            aggregate=aggregate,
            field=field,
            padding_mode=border,
        )
        seconds = time.perf_counter() - began
        report("measuring")
        output, expected = (_seen(image, target.alpha) for image in (color, query))
        mse, psnr = mean_squared_error(output, expected), peak_signal_noise_ratio(output, expected)
    return Reconstruction(
        image=replace(target, color=color, icc_profile=reference.icc_profile, color_chunks=reference.color_chunks),
        field=field,
        mse=mse,
        psnr=psnr,
        seconds=seconds,
    )


def _encoded_as(target: Image, reference: Image) -> Image:
    """Convert the target to the reference's color encoding."""
    if (target.icc_profile, target.color_chunks) == (reference.icc_profile, reference.color_chunks):
        return target
    return to_profile(target, profile_of(reference, argument="reference"), argument="target")


def _padding_mode(patch_size: int, *images: Tensor) -> PaddingMode:
    shortest = min(min(image.shape[2:]) for image in images)
    return "reflect" if patch_size // 2 < shortest else "replicate"


def _seen(image: Tensor, alpha: Tensor | None) -> Tensor:
    """Visible pixels, (1, channels, pixels); all pixels if none is visible."""
    if alpha is None or not alpha.any():
        return image
    return image.flatten(2)[:, :, visible(alpha).flatten()]


def _silent(stage: str) -> None:
    pass
