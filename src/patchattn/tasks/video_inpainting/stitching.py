"""Stitching: which frame each pixel of the hole comes from, and corrections where frames meet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from patchattn.tasks.membrane import spread
from patchattn.tasks.video_inpainting.alignment import Aligned, Colors
from patchattn.tasks.video_inpainting.camera import Mask

__all__ = ["best_sources", "filled_from", "first_sources", "lighting"]

Labels = NDArray[np.int64]
"""Number of the source of each pixel; -1: none."""

SMOOTHING = 7
"""Side of the square over which differences are averaged before sources are chosen, in pixels."""
COST_PER_FRAME = 0.002
"""Difference in color that a frame more between source and target weighs as much as."""
MAX_BORDER_STEP, MAX_SEAM_STEP = 0.12, 0.25
"""As in `tasks.seams`: larger steps in color are no light."""
NEAR = 49
"""Side of the square in which differences around the hole count for a pixel."""
RING = 12
"""Width of the ring around the hole where frames are compared, in pixels."""


def lighting(here: Colors, hole: Mask, color: Colors, valid: Mask) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Median difference in color around the hole, which light and exposure make, and the rest of it around each pixel.

    The rest is averaged over the ring near each pixel, so that a source can be right on one side of a hole only.
    """
    import cv2

    ring = (cv2.dilate(hole.astype(np.uint8), np.ones((2 * RING + 1,) * 2, np.uint8)) > 0) & ~hole & valid
    if not ring.any():
        return np.zeros(here.shape[2], np.float32), np.ones(hole.shape, np.float32)
    shift = np.median(here[ring] - color[ring], 0)
    rest = np.where(ring, np.abs(here - color - shift).mean(-1), 0).astype(np.float32)
    shared = float(rest[ring].mean())
    near = cv2.blur(ring.astype(np.float32), (NEAR,) * 2)
    # Where the ring is far, its mean.
    weight = near + 1e-3
    return shift, (cv2.blur(rest, (NEAR,) * 2) + 1e-3 * shared) / weight


def best_sources(hole: Mask, sources: Sequence[Aligned]) -> Labels:
    """Choose a source for each pixel of a hole: alike to what most of them show there, near in time, well aligned, and
    at rest. So what passes through a frame is not chosen where others show the background."""
    import cv2

    labels = np.full(hole.shape, -1, np.int64)
    if not sources or not hole.any():
        return labels
    rows, columns = hole.nonzero()
    colors = np.stack([source.color[rows, columns] for source in sources])
    valid = np.stack([source.valid[rows, columns] for source in sources])
    middle = _median(colors, valid)
    best = np.full(hole.shape, np.inf, np.float32)
    for number, source in enumerate(sources):
        inside = np.zeros(hole.shape, np.float32)
        inside[rows, columns] = valid[number]
        differs = np.zeros(hole.shape, np.float32)
        differs[rows, columns] = np.abs(colors[number] - middle).mean(-1) * valid[number]
        mean = cv2.blur(differs, (SMOOTHING,) * 2) / np.maximum(cv2.blur(inside, (SMOOTHING,) * 2), 1e-6)
        cost = mean + COST_PER_FRAME * source.distance + source.error + source.unrest
        better = (inside > 0) & (cost < best)
        labels[better], best[better] = number, cost[better]
    return labels


def first_sources(hole: Mask, sources: Sequence[Aligned]) -> Labels:
    """The first source that shows each pixel of a hole."""
    labels = np.full(hole.shape, -1, np.int64)
    for number, source in enumerate(sources):
        labels[hole & source.valid & (labels < 0)] = number
    return labels


def filled_from(here: Colors, hole: Mask, labels: Labels, sources: Sequence[Aligned]) -> Colors:
    """Fill the pixels that have a source, with the steps in color between sources and to the known pixels corrected.

    As in gradient-domain cloning (Perez et al. 2003): the sources say how colors change, the surroundings say which
    they are. A membrane carries the corrections from the borders into the hole.

    Args:
        here: a rectangle of the frame.
        hole: unknown pixels; those without a source stay as they are.
        labels: source of each pixel.
        sources: their content.
    """
    filled = here.copy()
    for number, source in enumerate(sources):
        mine = labels == number
        filled[mine] = source.color[mine]
    taken = labels >= 0
    if not taken.any():
        return filled
    outer, inner = _Steps(here.shape), _Steps(here.shape)
    for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        rows, columns = (taken & _beside(np.ones_like(taken), down, right)).nonzero()
        mine, at = labels[rows, columns], (rows + down, columns + right)
        for number, source in enumerate(sources):
            near = mine == number
            place = rows[near], columns[near]
            beside = at[0][near], at[1][near]
            border = ~hole[beside] & source.valid[beside]
            outer.add(place, here[beside] - source.color[beside], border, MAX_BORDER_STEP)
            # The neighbor's source, if it shows this pixel too.
            other = labels[beside]
            for neighbor in set(other[(other >= 0) & (other != number)].tolist()):
                meets = (other == neighbor) & sources[neighbor].valid[place]
                inner.add(place, (sources[neighbor].color[place] - source.color[place]) / 2, meets, MAX_SEAM_STEP / 2)
    at_border, at_seam = outer.count[..., 0] > 0, inner.count[..., 0] > 0
    border, seam = outer.mean(), np.where(at_border[..., None], 0, inner.mean())
    both = spread(_tensor(border, seam), _masks(at_border, at_border | at_seam), _masks(taken, taken))
    correction = np.moveaxis(both.sum(0).numpy(), 0, -1)
    filled[taken] = (filled + correction)[taken].clip(0, 1)
    return filled


class _Steps:
    """Mean of the small steps at each pixel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.sum, self.count = np.zeros(shape, np.float32), np.zeros((*shape[:2], 1), np.float32)

    def add(self, place: tuple[NDArray[np.int64], ...], step: Colors, where: Mask, limit: float) -> None:
        small = where & (np.abs(step).max(-1) < limit)
        at = tuple(axis[small] for axis in place)
        # A pixel is in `place` once: no sums are lost.
        self.sum[at] += step[small]
        self.count[at] += 1

    def mean(self) -> Colors:
        mean: Colors = (self.sum / self.count.clip(1)).astype(np.float32)
        return mean


def _median(colors: NDArray[np.float32], valid: Mask) -> NDArray[np.float32]:
    """Median over the sources that are valid, the lower of two; any number where none is."""
    ordered = np.sort(np.where(valid[..., None], colors, np.inf), 0)
    middle = np.maximum(valid.sum(0) - 1, 0) // 2
    chosen: NDArray[np.float32] = np.take_along_axis(ordered, middle[None, :, None], 0)[0]
    return np.where(np.isfinite(chosen), chosen, np.float32(0))


def _beside(mask: Mask, down: int, right: int) -> Mask:
    """Whether the neighbor of each pixel is in the mask; False beyond the border."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    return padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _tensor(*images: Colors) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.moveaxis(image, -1, 0) for image in images]).astype(np.float32))


def _masks(*masks: Mask) -> torch.Tensor:
    return torch.from_numpy(np.stack(masks)[:, None])
