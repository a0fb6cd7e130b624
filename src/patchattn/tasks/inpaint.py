"""Inpainting: holes filled with patches of the same image."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import floor, log2
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.checks import check_choice, check_count
from patchattn.deprecation import renamed_argument
from patchattn.field import MatchField
from patchattn.tasks.completion import Effort, begin, enlarge, improve, joined
from patchattn.tasks.copies import copies_of, enlarged_copies
from patchattn.tasks.deprecated import ImageResult
from patchattn.tasks.images import Image
from patchattn.tasks.membrane import membrane_interpolation
from patchattn.tasks.onion_peel import peeled
from patchattn.tasks.pyramid import dilated, image_pyramid
from patchattn.tasks.thin_holes import fill_thin_parts, thin_part

__all__ = ["QUALITIES", "Inpainting", "InpaintingModel", "inpaint"]

QUALITIES = {
    "fast": Effort(first=1, others=1, last=1, mean=False, thin=1, narrow=5),
    "good": Effort(first=30, others=2, last=1, mean=True, thin=2, narrow=10),
    "best": Effort(first=80, others=4, last=2, mean=True, thin=4, narrow=20),
}
MAX_FINE_PATCH_SIZE = 7
"""Largest patch size at full size: larger ones cost more there and decide nothing (docs/inpaint.md)."""
MAX_LABELED = 9000
"""Largest hole, in pixels of a level, in which patches are searched: in finer levels what has been chosen is copied."""
MAX_THIN_PATCH_SIZE = 7
"""Largest patch size for thin parts of holes; larger patches are no better there (docs/inpaint.md)."""


class InpaintingModel(Protocol):
    """A network that fills holes instead of patch search, such as `networks.inpainting.InpaintingNetwork`."""

    def fill(
        self, image: Float[Tensor, "batch 3 height width"], hole: Bool[Tensor, "batch height width"], /
    ) -> Float[Tensor, "batch 3 height width"]:
        """Fill the hole (True) of RGB in [0, 1]."""


@dataclass(frozen=True)
class Inpainting(ImageResult):
    """Result of `inpaint`."""

    image: Image
    """Completed image; known pixels are unchanged, to the last bit."""
    field: MatchField | None
    """Position that each pixel of the hole is copied from, -1 elsewhere; in thin parts, which are averaged, the matches
    of the patches that touch them. None if there was no hole, or a network was used."""
    seconds: float
    """Wall time; the first run ever on a machine may also compile the kernels."""


@renamed_argument("picture", "image")
def inpaint(
    image: Image | Tensor,
    hole: Bool[Tensor, "height width"] | Float[Tensor, "height width"] | None = None,
    *,
    grow: int = 0,
    keep_out: Bool[Tensor, "height width"] | Float[Tensor, "height width"] | None = None,
    guide: Float[Tensor, "maps height width"] | None = None,
    patch_size: int = 11,
    levels: int | None = None,
    quality: str = "good",
    iterations: int | None = None,
    seed: int = 0,
    network: InpaintingModel | None = None,
    progress: Callable[[str], None] | None = None,
) -> Inpainting:
    r"""Fill a hole with patches from the rest of the image.

    Minimizes, from coarse to fine (Wexler et al. 2007), over the pixels u of the hole and the matches j,

    $$E(u, j) = \sum_{i \text{ touches the hole}} \; \sum_{o \in \text{patch}}
      \lVert f_{i + o} - f_{j(i) + o} \rVert^2$$

    where f are colors, texture, the guide if there is one and, with a small weight, the position; j(i) are centers of
    patches completely outside the hole. At each pyramid level two steps alternate: find the best j for each i (a search
    that starts from the previous field), then the u that these j say. The coarsest level, where the structure is
    decided, is first filled from the hole's border inwards, by patches compared where they are known (onion peel,
    Newson et al. 2014); then u is the mean of all patches that hold a pixel, weighted by `exp(-cost / T)`; see
    `patch_attention(aggregate=True)`. From there on pixels are copied: each from where most of the patches that hold it
    come from (`majority_vote`), so that the completion is as sharp as the image. At the finest level whose hole has at
    most 9,000 pixels, one of the field's most frequent offsets is chosen for each pixel so that seams show least, by
    graph cuts (`label_sources`); finer levels copy the same, and move the seams by some pixels. Steps in color where
    copies meet the known pixels or each other are closed by membrane interpolation, so that the illumination comes from
    the surroundings.

    Args:
        image: an `Image`, or a tensor (1, 1 or 3, height, width) in [0, 1]. Where a hole is given, its alpha is
            completed like a color.
        hole: mask of the pixels to fill (True); it may touch the border. Or the coverage of each pixel, from 0 to 1:
            every pixel above 0 is filled. None: every pixel that is not fully opaque; the result then has no alpha.
        grow: dilation of the hole in pixels. 0 for lossless images; JPEG spreads the color of an object over two pixels
            beside it, see `masks.add_jpeg_rim`.
        keep_out: mask of pixels (True, or above 0) that no copied patch may hold.
        guide: maps by which patches are compared beside the colors, known in the hole too: labels, depth, the phase of
            a pattern. Their squared differences count as those of colors in [0, 1] do, so that a map times $\sqrt{w}$
            weighs w times as much.
        patch_size: odd side of the patches, in pixels of each level; at most 7 at full size, if there are other levels,
            and in thin parts, where pixels are averaged. Larger ones keep more structure and need more
            known surroundings; 11 was best on photographs of 512x512 (docs/inpaint.md).
        levels: number of pyramid levels. None: until the hole is about half as wide as a patch. Thin parts (dust,
            scratches, wires; narrower than some 15 pixels) are completed first and at full size alone, as
            docs/inpaint.md describes.
        quality: `"fast"`, `"good"` or `"best"`: preset of iterations. More iterations find more structure at the
            coarsest level and give sharper texture.
        iterations: number of search-and-vote iterations at every level. None: those of `quality`.
        seed: of the search's random choices.
        network: a network to fill RGB with instead of patches, see `networks.weights.load_inpainting_network`; the
            description above does not apply then. Gray is filled as RGB, alpha by membrane interpolation.
        progress: called with the name of each stage as it begins: "tile 1 of 9" and so on for the thin parts of
            the hole, "scale 1 of 5" for the others, or "running the network".

    Returns:
        The completed image, the field, and the time.

    Raises:
        ValueError: a mask or the guide does not fit the image, there is nothing to copy from, `keep_out` or `guide` is
            combined with a network, or an argument is out of range.

    Example:
        >>> stripes = (torch.arange(64) // 4 % 2).float().expand(1, 1, 64, 64)
        >>> hole = torch.zeros(64, 64, dtype=torch.bool)
        >>> hole[20:40, 24:36] = True
        >>> result = inpaint(stripes, hole)
        >>> bool((result.image.color - stripes).abs().max() < 0.01)
        True
    """
    image = image if isinstance(image, Image) else Image(image)
    check_choice("quality", quality, tuple(QUALITIES))
    effort = QUALITIES[quality]
    if iterations is not None:
        check_count("iterations", iterations, 1)
        effort = replace(
            effort, first=iterations, others=iterations, last=iterations, thin=iterations, narrow=iterations
        )
    check_count("seed", seed, 0)
    if levels is not None:
        check_count("levels", levels, 1)
    check_count("patch_size", patch_size, 1)
    if patch_size % 2 == 0:
        raise ValueError(f"patch_size: expected an odd number (a patch has a center), got {patch_size}.")
    check_count("grow", grow, 0)
    in_alpha = hole is None
    hole = _transparent(image) if hole is None else _checked("hole", hole, image)
    if keep_out is not None and network is not None:
        raise ValueError("keep_out: a network copies no patches that could be kept out; expected None.")
    if guide is not None and network is not None:
        raise ValueError("guide: a network compares no patches that could be guided; expected None.")
    guide = None if guide is None else _checked_guide(guide, image)
    hole = dilated(hole, grow)
    keep_out = torch.zeros_like(hole) if keep_out is None else _checked("keep_out", keep_out, image)
    report = progress if progress is not None else _silent

    began = time.perf_counter()
    field = None
    if hole.any():
        with torch.no_grad():
            parts = [image.color] if in_alpha or image.alpha is None else [image.color, image.alpha]
            known = torch.cat(parts, 1)
            count = image.color.shape[1]
            if network is None:
                _check_sources(hole, keep_out, patch_size, in_alpha)
                filled, field = _complete(known, hole, keep_out, guide, patch_size, levels, effort, seed, report)
            else:
                report("running the network")
                filled = _run_network(known, count, hole, network)
            # The very numbers that were known, whatever the scales made of them.
            filled = torch.where(hole, filled.clamp(0, 1), known)
            alpha = None if in_alpha or image.alpha is None else filled[:, count:]
            image = replace(image, color=filled[:, :count], alpha=alpha)
    return Inpainting(image, field, time.perf_counter() - began)


def _check_sources(hole: Tensor, keep_out: Tensor, patch_size: int, in_alpha: bool) -> None:
    if not dilated(hole | keep_out, patch_size // 2).all():
        return
    outside = "of the image's transparent pixels" if in_alpha else "of it"
    raise ValueError(
        f"hole: no patch of {patch_size} x {patch_size} pixels lies outside {outside}"
        + (" and of keep_out" if keep_out.any() else "")
        + ", so that there is nothing to copy; expected a smaller hole, or a smaller patch_size."
    )


def _complete(
    channels: Tensor,
    hole: Tensor,
    keep_out: Tensor,
    guide: Tensor | None,
    patch_size: int,
    levels: int | None,
    effort: Effort,
    seed: int,
    report: Callable[[str], None],
) -> tuple[Tensor, MatchField]:
    field = None
    rest = hole
    # With given levels all of the hole is completed at these.
    for side, size, around, times in _thin_classes(patch_size, effort) if levels is None else ():
        thin = thin_part(rest, side, reach=2 * patch_size)
        if thin.any():
            channels, found = fill_thin_parts(
                channels, rest, thin, keep_out | hole, size, around, times, seed, report, guide
            )
            field = joined(field, found)
            rest = rest & ~thin
    if field is not None and not rest.any():
        return channels, field
    scales = image_pyramid(channels, rest, keep_out, patch_size, levels, guide)
    finest = patch_size if len(scales) == 1 else min(patch_size, MAX_FINE_PATCH_SIZE)
    # At full size nothing is copied from what has been filled.
    scales[0] = replace(scales[0], sources=~dilated(hole | keep_out, finest // 2))
    report(f"scale 1 of {len(scales)}")
    completion = improve(peeled(begin(scales[-1], patch_size), seed), effort.first, effort.others, seed)
    sizes = [finest, *[patch_size] * (len(scales) - 1)]
    done = len(scales) - 1
    while done > 0 and scales[done - 1].hole.sum() <= MAX_LABELED:
        done -= 1
        report(f"scale {len(scales) - done} of {len(scales)}")
        full = done == 0
        completion = enlarge(completion, scales[done], sizes[done], mean=effort.mean or not full)
        completion = improve(completion, 0, effort.last if full else effort.others, seed)
    copies = copies_of(completion, sizes[done])
    for number in range(done - 1, -1, -1):
        report(f"scale {len(scales) - number} of {len(scales)}")
        copies = enlarged_copies(copies, scales[number], sizes[number])
    return copies.image, joined(field, copies.source)


def _thin_classes(patch_size: int, effort: Effort) -> list[tuple[int, int, int, int]]:
    """Classes of parts that are completed at full size only: limit on their width, patch size, margin of surroundings
    in pixels, and iterations."""
    side = 2 ** floor(log2(patch_size))
    return [
        (side, min(patch_size, MAX_THIN_PATCH_SIZE), 64, effort.thin),
        # From twice the side, `image_pyramid` halves the image.
        (2 * side, patch_size, 128, effort.narrow),
    ]


def _run_network(known: Tensor, count: int, hole: Tensor, network: InpaintingModel) -> Tensor:
    """Run the network on the first `count` channels (gray or RGB); the others are filled by membrane interpolation."""
    filled = network.fill(known[:, :count].expand(-1, 3, -1, -1), hole[:, 0])
    color = filled if count == 3 else filled.mean(1, keepdim=True)
    others = known[:, count:]
    return torch.cat([color, membrane_interpolation(others, hole)], 1) if others.numel() else color


def _transparent(image: Image) -> Tensor:
    if image.alpha is None:
        raise ValueError("hole: got None, and the image has no alpha; expected a mask, or an image with one.")
    if bool((image.alpha == 1).all()):
        raise ValueError("hole: got None, and no pixel of the image is transparent; expected a mask.")
    return image.alpha < 1


def _checked(name: str, mask: Tensor, image: Image) -> Tensor:
    if tuple(mask.shape) != image.size or not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(
            f"{name}: got shape {tuple(mask.shape)} of {mask.dtype}; expected booleans of the image's size, "
            f"{image.size}, or how much of each pixel is covered, as floats."
        )
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError(f"{name}: got values beside [0, 1]; expected how much of each pixel is covered.")
    return (mask > 0).to(image.color.device)[None, None]


def _checked_guide(guide: Tensor, image: Image) -> Tensor:
    if guide.dim() != 3 or tuple(guide.shape[1:]) != image.size or not guide.is_floating_point():
        raise ValueError(
            f"guide: got shape {tuple(guide.shape)} of {guide.dtype}; expected floats of shape (maps, height, width) "
            f"with the image's size, {image.size}."
        )
    if not bool(guide.isfinite().all()):
        raise ValueError("guide: it holds NaN or infinity; expected finite numbers.")
    return guide.to(image.color)[None]


def _silent(stage: str) -> None:
    pass
