"""Key positions numbered in a frame that is wider than the image by as much as matches move.

A match moved by so much is then another number by one addition, and what has left the image is still a number of the
frame, at which tables hold "nothing": no division, no test of borders.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.parameters import LINE_DISTANCES, MASKED_NEIGHBOR_DISTANCE

__all__ = ["MAX_LINE_DISTANCE", "Frame", "frame_of", "framed", "place_in_frame", "unframed"]


MAX_LINE_DISTANCE = LINE_DISTANCES[0]


class Frame(NamedTuple):
    """Sizes. Dimensions in front that the image does not have get no margin."""

    k_h: int
    k_w: int
    margin_t: int
    margin_y: int
    margin_x: int
    rows: int
    """Rows of a slice of the frame."""
    row: int
    """Distance of a step along y."""
    plane: int
    """Distance of a step along t."""
    total: int
    """Positions of the whole frame."""


def frame_of(size: tuple[int, int, int], dims: int) -> Frame:
    margin_t, margin_y = MASKED_NEIGHBOR_DISTANCE * (dims == 3), MASKED_NEIGHBOR_DISTANCE * (dims >= 2)
    margin_x = MAX_LINE_DISTANCE if dims == 1 else MASKED_NEIGHBOR_DISTANCE
    rows, row = size[1] + 2 * margin_y, size[2] + 2 * margin_x
    return Frame(
        size[1], size[2], margin_t, margin_y, margin_x, rows, row, rows * row, (size[0] + 2 * margin_t) * rows * row
    )


@inlined
def framed(j: int, frame: Any) -> int:
    row = np.int64(np.uint32(j) // np.uint32(frame.k_w))
    x = j - row * frame.k_w
    t = np.int64(np.uint32(row) // np.uint32(frame.k_h))
    y = row - t * frame.k_h
    return (t + frame.margin_t) * frame.plane + (y + frame.margin_y) * frame.row + x + frame.margin_x


@inlined
def unframed(position: int, frame: Any) -> int:
    t, y, x = place_in_frame(position, frame)
    return (t * frame.k_h + y) * frame.k_w + x


@inlined
def place_in_frame(position: int, frame: Any) -> tuple[int, int, int]:
    """The key's t, y and x."""
    row = np.int64(np.uint32(position) // np.uint32(frame.row))
    x = position - row * frame.row - frame.margin_x
    t = np.int64(0)
    if row >= frame.rows:
        t = np.int64(np.uint32(row) // np.uint32(frame.rows))
    y = row - t * frame.rows - frame.margin_y
    return t - frame.margin_t, y, x
