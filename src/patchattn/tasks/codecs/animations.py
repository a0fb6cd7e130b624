"""Animations as stored in files: frames composited onto a canvas one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from patchattn.tasks.codecs.samples import Array

__all__ = ["Animation", "Frame", "TimedFrame", "changed_box", "composite", "cut", "is_opaque"]


class Frame(NamedTuple):
    """A frame as stored in a file."""

    still: bytes
    """An image file of this frame alone."""
    left: int
    top: int
    duration: float
    """In seconds."""
    dispose: Literal["keep", "background", "previous"] = "keep"
    """Disposal of the frame's rectangle before the next frame: keep it, clear it, or restore the frame before."""
    blend: bool = True
    """Whether the frame is alpha-blended over the canvas; otherwise it replaces the canvas there."""


class TimedFrame(NamedTuple):
    """A full frame to write, with its duration."""

    array: Array
    """(height, width, channels); all frames of a file have one shape and dtype."""
    duration: float
    """In seconds."""


@dataclass(frozen=True)
class Animation:
    """Frames of an animation and its global settings."""

    size: tuple[int, int]
    """(height, width) of the canvas."""
    frames: list[Frame]
    plays: int
    """Number of loops; 0: infinite."""
    background: tuple[int, int, int, int] | None = None
    """Background color, RGBA, which only some viewers show."""
    gray: bool = False
    """Whether all frames are gray; otherwise all are RGB."""
    still_apart: bool = False
    """APNG: the default image is not one of the frames."""


def composite(animation: Animation, decode: Callable[[bytes], Array]) -> Iterator[Array]:
    """Yield the whole canvas of every frame, (height, width, 2 or 4): gray or RGB, and alpha.

    Args:
        decode: returns the samples of a `still`. All of them are gray, or all are RGB, and of one dtype.
    """
    canvas: Array | None = None
    for part, frame in _parts(animation, decode):
        if canvas is None:
            canvas = np.zeros((*animation.size, part.shape[2]), part.dtype)
        height, width = animation.size
        rows = slice(frame.top, min(frame.top + part.shape[0], height))
        columns = slice(frame.left, min(frame.left + part.shape[1], width))
        part = part[: max(rows.stop - rows.start, 0), : max(columns.stop - columns.start, 0)]
        before = canvas[rows, columns].copy()
        canvas[rows, columns] = _over(part, before) if frame.blend else part
        yield canvas.copy()
        if frame.dispose == "background":
            canvas[rows, columns] = 0
        elif frame.dispose == "previous":
            canvas[rows, columns] = before


def is_opaque(animation: Animation, decode: Callable[[bytes], Array]) -> bool:
    """Decode every frame and return whether the canvas is always opaque, without compositing it."""
    opaque = True
    height, width = animation.size
    bare: tuple[int, int, int, int] | None = (0, 0, height, width)
    """Rectangle that is transparent before a frame: top, left, bottom, right."""
    for part, frame in _parts(animation, decode):
        box = (frame.top, frame.left, frame.top + part.shape[0], frame.left + part.shape[1])
        solid = bool((part[:, :, -1] == np.iinfo(part.dtype).max).all())
        covered = bare is None or (solid and _holds(box, bare))
        opaque = opaque and covered and (solid or frame.blend)
        bare = box if frame.dispose == "background" or (frame.dispose == "previous" and bare is not None) else None
    return opaque


def _holds(outer: tuple[int, int, int, int], inner: tuple[int, int, int, int]) -> bool:
    return all(a <= b for a, b in zip(outer[:2], inner[:2], strict=True)) and all(
        a >= b for a, b in zip(outer[2:], inner[2:], strict=True)
    )


def _parts(animation: Animation, decode: Callable[[bytes], Array]) -> Iterator[tuple[Array, Frame]]:
    """Yield each frame with its samples, alpha included."""
    for number, frame in enumerate(animation.frames, 1):
        try:
            part = _with_alpha(decode(frame.still))
        except MemoryError:
            raise
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise ValueError(f"frame {number} of {len(animation.frames)}: {reason}") from error
        yield part, frame


def changed_box(changed: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the rows and columns that hold every true pixel; one pixel where none is true."""
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    if not len(rows):
        return slice(0, 1), slice(0, 1)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def cut(array: Array, rows: slice, columns: slice) -> Array:
    """Return a rectangle of an array, contiguous as encoders want it."""
    return cast("Array", np.ascontiguousarray(array[rows, columns]))


def _with_alpha(array: Array) -> Array:
    if array.shape[2] in (2, 4):
        return array
    opaque = np.full((*array.shape[:2], 1), np.iinfo(array.dtype).max, array.dtype)
    return np.concatenate([array, opaque], axis=2)


def _over(upper: Array, lower: Array) -> Array:
    """Alpha-blend (over operator) of colors that are not premultiplied."""
    largest = np.iinfo(upper.dtype).max
    # What is opaque or wholly transparent stays exact.
    result: Any = np.where(upper[:, :, -1:] == 0, lower, upper)
    partly = (upper[:, :, -1] > 0) & (upper[:, :, -1] < largest) & (lower[:, :, -1] > 0)
    if partly.any():
        above, below = upper[partly].astype(np.float64) / largest, lower[partly].astype(np.float64) / largest
        behind = below[:, -1:] * (1 - above[:, -1:])
        alpha = above[:, -1:] + behind
        color = (above[:, :-1] * above[:, -1:] + below[:, :-1] * behind) / alpha
        result[partly] = np.rint(np.concatenate([color, alpha], 1) * largest).astype(upper.dtype)
    return cast("Array", result)
