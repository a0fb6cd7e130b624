"""Seams of copies: the steps in color where copies from different places meet each other or known pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.field import MatchField
from patchattn.tasks.membrane import spread
from patchattn.tasks.neighbors import NEIGHBORS, inside, neighbors_at, positions_beside

__all__ = ["seam_correction", "values_at"]

MAX_STEP = 0.15
"""Largest step in color that is put down to light; beyond, the copies differ by what they show."""


def seam_correction(
    source: MatchField,
    image: Float[Tensor, "1 channels height width"],
    color: Float[Tensor, "1 channels rows columns"],
    known: Float[Tensor, "1 channels rows columns"],
    hole: Bool[Tensor, "1 1 rows columns"],
) -> Float[Tensor, "1 channels rows columns"]:
    """Interpolate the correction of copied pixels that closes the steps at their seams.

    As in gradient-domain cloning (Perez et al. 2003): copies say how colors change, the surroundings say which they
    are. Beside a known pixel the correction is the whole step: the known color less the color that stands there in the
    copy's own source; a membrane carries it into the hole. Where two copies meet, each is corrected by half the step
    between them too, which another membrane carries to the border, where it is 0.

    Args:
        source: position in the image that each pixel of the hole is copied from; -1: none.
        image: where it is copied from.
        color: the copies.
        known: the known pixels around the hole.
        hole: True: copied.
    """
    rows, columns = source.coordinates()[0, 0, 0]
    copied = hole & (rows >= 0)
    outer, outer_count = torch.zeros_like(color), torch.zeros_like(color[:, :1])
    inner, inner_count = torch.zeros_like(color), torch.zeros_like(color[:, :1])
    for (down, right), other in zip(NEIGHBORS, positions_beside(source), strict=True):
        row, column = rows + down, columns + right
        step = neighbors_at(known, down, right) - values_at(image, row, column)
        beside = copied & neighbors_at(~hole, down, right) & inside(row, column, *source.key_shape) & _small(step)
        outer += torch.where(beside, step, 0)
        outer_count += beside

        # The same pixel, if it were copied from where its neighbor is.
        row, column, found = other
        step = values_at(image, row, column) - color
        beside = copied & found & ((row != rows) | (column != columns)) & _small(step)
        inner += torch.where(beside, step / 2, 0)
        inner_count += beside
    at_border, seam = outer_count > 0, inner_count > 0
    light = spread(outer / outer_count.clamp(min=1), at_border, hole)
    # The light is smooth, so that it leaves the steps inside as they are.
    halves = torch.where(at_border, 0, inner / inner_count.clamp(min=1))
    return light + spread(halves, at_border | seam, hole)


def values_at(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Pixels of the image at these positions, the nearest ones for positions outside."""
    height, width = image.shape[2:]
    return image.flatten(2)[..., row.clamp(0, height - 1) * width + column.clamp(0, width - 1)]


def _small(step: Tensor) -> Tensor:
    return step.abs().amax(1, keepdim=True) < MAX_STEP
