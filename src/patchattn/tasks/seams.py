"""Seams of copies: the steps in color where copies from different places meet each other or known pixels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.field import MatchField
from patchattn.tasks.membrane import spread
from patchattn.tasks.neighbors import NEIGHBORS, inside, neighbors_at, positions_beside

__all__ = ["seam_correction", "values_at"]

MAX_BORDER_STEP, MAX_SEAM_STEP = 0.12, 0.25
"""Largest steps in color that are put down to light, between a copy and the known pixels and between two copies;
beyond, they differ by what they show. The former reach far into the hole: stones would darken the water above them."""


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
    outer, inner = _Steps(color, MAX_BORDER_STEP), _Steps(color, MAX_SEAM_STEP)
    for (down, right), other in zip(NEIGHBORS, positions_beside(source), strict=True):
        row, column = rows + down, columns + right
        beside = copied & neighbors_at(~hole, down, right) & inside(row, column, *source.key_shape)
        outer.add(beside, neighbors_at(known, down, right), image, row, column)

        # The same pixel, if it were copied from where its neighbor is.
        row, column, found = other
        inner.add(copied & found & ((row != rows) | (column != columns)), color, image, row, column)
    at_border, seam = outer.count > 0, inner.count > 0
    # Where a copy meets another, each takes half of the step, and none of it is left at the border: the light that
    # comes from there is smooth, and leaves the steps inside as they are.
    halves = torch.where(at_border, 0, -inner.mean() / 2)
    both = spread(torch.cat([outer.mean(), halves]), torch.cat([at_border, at_border | seam]), hole)
    return both.sum(0, keepdim=True)


class _Steps:
    """Mean of the small steps at each pixel."""

    def __init__(self, color: Tensor, limit: float) -> None:
        self.limit = limit
        self.sum, self.count = torch.zeros_like(color), torch.zeros_like(color[:, :1])

    def add(self, where: Tensor, color: Tensor, image: Tensor, row: Tensor, column: Tensor) -> None:
        """Add what the color has more than the image at this row and column, at the pixels of a mask."""
        # Few pixels are at a seam: only these are read.
        at = where.flatten().nonzero()[:, 0]
        step = color.flatten(2)[..., at] - values_at(image, row.flatten()[at], column.flatten()[at])
        small = step.abs().amax(1, keepdim=True) < self.limit
        self.sum.flatten(2)[..., at] += torch.where(small, step, 0)
        self.count.flatten(2)[..., at] += small

    def mean(self) -> Tensor:
        return self.sum / self.count.clamp(min=1)


def values_at(image: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Pixels of the image at these positions, the nearest ones for positions outside."""
    height, width = image.shape[2:]
    return image.flatten(2)[..., row.clamp(0, height - 1) * width + column.clamp(0, width - 1)]
