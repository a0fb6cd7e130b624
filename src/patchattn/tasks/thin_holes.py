"""Completion of thin parts of holes (dust, scratches, wires) at full size, tile by tile.

Close to every pixel of a thin part lies one that is known, so that a smooth fill is nearly right, and a few searches
and votes do what takes many, at several scales, in wide holes. Nothing far away is needed either: each tile is
completed from its own surroundings, in memory that does not grow with the image.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from patchattn.field import MatchField
from patchattn.tasks.completion import Completion, begin, improve
from patchattn.tasks.membrane import membrane_interpolation
from patchattn.tasks.pyramid import PyramidLevel, any_within, dilated, image_pyramid

__all__ = ["fill_thin_parts", "thin_part", "tiles_of"]

CELL = 16
"""Granularity of tiles, in pixels."""
MAX_AREA = 1280**2
"""Largest area of a tile in pixels, which bounds memory."""
TILE_OVERHEAD = 5000
"""Fixed cost of a tile, in pixels that could be completed in that time."""


def thin_part(hole: Bool[Tensor, "1 1 height width"], side: int, reach: int) -> Bool[Tensor, "1 1 height width"]:
    """Mask of the thin part of a hole: pixels farther than `reach` from every square of `side` that fits into it."""
    if min(hole.shape[2:]) < side:
        return hole
    height, width = (extent - side + 1 for extent in hole.shape[2:])
    corners = ~any_within(~hole, 0, side - 1)[..., :height, :width]
    if not corners.any():
        return hole
    squares = any_within(F.pad(corners, (0, side - 1, 0, side - 1)), side - 1, 0)
    return hole & ~dilated(squares, reach)


def fill_thin_parts(
    image: Float[Tensor, "1 channels height width"],
    hole: Bool[Tensor, "1 1 height width"],
    thin: Bool[Tensor, "1 1 height width"],
    keep_out: Bool[Tensor, "1 1 height width"],
    patch_size: int,
    around: int,
    times: int,
    seed: int,
    report: Callable[[str], None],
    guide: Float[Tensor, "1 maps height width"] | None = None,
) -> tuple[Float[Tensor, "1 channels height width"], MatchField]:
    """Complete the thin part of a hole.

    Args:
        image: any channels; not copied from in the hole.
        hole: True: unknown; there is a patch outside of it and of `keep_out`.
        thin: its part that is completed.
        keep_out: True: no patch with this pixel is copied.
        patch_size: side of the patches.
        around: pixels around each tile from which it is completed; doubled until there is something to copy.
        times: searches and votes.
        seed: of the search.
        report: called with the name of each tile.
        guide: maps that are compared beside the colors.

    Returns:
        The image with its thin part filled, and the match of every patch that touches it.
    """
    size = (image.shape[2], image.shape[3])
    index = torch.full((1, 1, 1, *size), -1, dtype=torch.int32, device=image.device)
    similarity = torch.full(index.shape, -inf, device=image.device, dtype=image.dtype)
    tiles = tiles_of(dilated(thin, patch_size // 2), around)
    # All tiles see the image as it was, so that their order changes nothing.
    found = image.clone()
    for number, tile in enumerate(tiles, 1):
        report(f"tile {number} of {len(tiles)}")
        completion, top, left = _completed(image, hole, thin, keep_out, tile, patch_size, around, times, seed, guide)
        rows, columns = tile
        here = (..., rows, columns)
        there = (..., slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
        found[here] = torch.where(thin[here], completion.image[there], image[here])
        field = completion.field()
        row, column = field.coordinates()[0, 0, 0]
        moved = ((row + top) * size[1] + column + left).int()
        index[here] = torch.where(field.index >= 0, moved, -1)[there]
        similarity[here] = field.similarity[there]
    return found, MatchField(index, similarity, size)


def tiles_of(touched: Bool[Tensor, "1 1 height width"], around: int) -> list[tuple[slice, slice]]:
    """Disjoint rectangles that cover all touched pixels at the lowest cost."""
    cells = F.max_pool2d(touched.float(), CELL, ceil_mode=True)[0, 0] > 0
    return [
        (
            slice(CELL * top, min(CELL * bottom, touched.shape[2])),
            slice(CELL * left, min(CELL * right, touched.shape[3])),
        )
        for top, bottom, left, right in _divided(cells.cpu().numpy(), 0, 0, around)[1]
    ]


def _divided(cells: NDArray[np.bool_], top: int, left: int, around: int) -> tuple[int, list[tuple[int, int, int, int]]]:
    """Split a grid of cells recursively where that is cheaper; returns the cost and the rectangles."""
    if not cells.any():
        return 0, []
    rows, columns = (np.flatnonzero(cells.any(axis)) for axis in (1, 0))
    cells = cells[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    top, left = top + int(rows[0]), left + int(columns[0])
    height, width = cells.shape
    cost = (CELL * height + 2 * around) * (CELL * width + 2 * around) + TILE_OVERHEAD
    whole = [(top, top + height, left, left + width)]
    if height * width == 1:
        return cost, whole
    if height >= width:
        at = height // 2
        halves = _divided(cells[:at], top, left, around), _divided(cells[at:], top + at, left, around)
    else:
        at = width // 2
        halves = _divided(cells[:, :at], top, left, around), _divided(cells[:, at:], top, left + at, around)
    cost_of_halves = halves[0][0] + halves[1][0]
    if cost_of_halves < cost or CELL**2 * height * width > MAX_AREA:
        return cost_of_halves, halves[0][1] + halves[1][1]
    return cost, whole


def _completed(
    image: Tensor,
    hole: Tensor,
    thin: Tensor,
    keep_out: Tensor,
    tile: tuple[slice, slice],
    patch_size: int,
    around: int,
    times: int,
    seed: int,
    guide: Tensor | None,
) -> tuple[Completion, int, int]:
    """Complete a tile within its surroundings; also returns their first row and column."""
    while True:
        rows, columns = (
            slice(max(0, s.start - around), min(n, s.stop + around)) for s, n in zip(tile, image.shape[2:], strict=True)
        )
        here = (..., rows, columns)
        guide_here = None if guide is None else guide[here]
        scale = _scale(image[here], hole[here], thin[here], keep_out[here], patch_size, guide_here)
        if scale.sources.any():
            return improve(begin(scale, patch_size), times, 0, seed), rows.start, columns.start
        around *= 2


def _scale(
    image: Tensor, hole: Tensor, thin: Tensor, keep_out: Tensor, patch_size: int, guide: Tensor | None
) -> PyramidLevel:
    """Make a pyramid level in which only the thin part is a hole; the rest is filled by membrane interpolation and not
    copied."""
    wide = hole & ~thin
    if wide.any():
        image = torch.where(wide, membrane_interpolation(image, hole), image)
    return image_pyramid(image, thin, keep_out | hole, patch_size, levels=1, guide=guide)[0]
