"""Alignment: another frame, as it would look from the camera of this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patchattn.tasks.membrane import membrane_interpolation
from patchattn.tasks.video_inpainting.camera import Homography, Mask, Plane, mapped

__all__ = ["Aligned", "Box", "align", "visible_through"]

Colors = NDArray[np.float32]
"""(height, width, channels) in [0, 1]."""

MAX_PARALLAX = 6.0
"""Largest motion in pixels beside that of the camera that is taken for the background's: parallax, waves."""
MAX_MISMATCH = 0.08
"""Largest difference in luminance after the motion at which it is believed."""
FLOW_MARGIN = 4
"""Flow this near to unknown pixels is influenced by them, and not used."""


@dataclass(frozen=True)
class Box:
    """A rectangle of a frame."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def around(cls, hole: Mask, margin: int) -> Box:
        """The smallest rectangle with a margin around a hole, inside the frame."""
        rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
        top, left = max(0, rows[0] - margin), max(0, columns[0] - margin)
        bottom, right = min(hole.shape[0], rows[-1] + 1 + margin), min(hole.shape[1], columns[-1] + 1 + margin)
        return cls(int(top), int(left), int(bottom - top), int(right - left))

    def of(self, image: NDArray[Any]) -> NDArray[Any]:
        """The rectangle of an image (height, width, ...)."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]

    def grid(self, step: int = 1) -> NDArray[np.float32]:
        """Coordinates (height, width, 2) of every so-many-th of its pixels in the frame, as (x, y)."""
        rows, columns = np.mgrid[self.top : self.top + self.height : step, self.left : self.left + self.width : step]
        return np.stack([columns, rows], -1).astype(np.float32)


@dataclass(frozen=True)
class Aligned:
    """Content of another frame in a rectangle of this one."""

    color: Colors
    valid: Mask
    """Where it shows something."""
    distance: int
    """Number of frames between the two."""
    error: NDArray[np.float32]
    """Mean difference in color around the hole, near each pixel."""
    unrest: NDArray[np.float32]
    """Difference from the frames before and after it, large where something moves by itself."""


def visible_through(hole: Mask, motion: Homography, box: Box, step: int = 1) -> Mask:
    """Where another frame, with a hole of its own, shows the content of a rectangle of this one, at every so-many-th
    pixel."""
    at = mapped(motion, box.grid(step))
    return _known_at(hole, at.astype(np.float32))


def align(
    here: Plane, hole_here: Mask, there: Plane, samples: NDArray[Any], hole_there: Mask, motion: Homography, box: Box
) -> tuple[Colors, Mask, NDArray[np.float32]]:
    """Warp another frame into a rectangle of this one.

    The homography brings them together but for parallax and what moves by itself. That rest is measured around the hole
    (dense inverse search, Kroeger et al. 2016) and interpolated smoothly inside.

    Args:
        here: luminance of the rectangle.
        hole_here: the hole in it.
        there: luminance of the other frame, whole.
        samples: its samples, of 8 or 16 bits.
        hole_there: its hole.
        motion: homography from this frame to the other.
        box: the rectangle.

    Returns:
        The colors in the rectangle, where they are known, and the positions that they come from.
    """
    import cv2

    at = mapped(motion, box.grid()).astype(np.float32)
    warped = cv2.remap(there, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    seen = _known_at(hole_there, at)
    both = seen & ~hole_here
    if both.any():
        # Where one of the two is unknown they are made equal: no motion.
        flow = _flow(np.where(both, here, warped), warped)
        at = at + _background(flow, here, warped, both) @ _linear(motion, box).T
    color = cv2.remap(samples, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    scaled = color.reshape(*at.shape[:2], -1).astype(np.float32) / np.iinfo(samples.dtype).max
    return scaled, _known_at(hole_there, at), at


def _linear(motion: Homography, box: Box) -> NDArray[np.float32]:
    """The homography's derivative in the middle of a rectangle: it turns offsets here to offsets there."""
    middle = np.array([box.left + box.width / 2, box.top + box.height / 2])
    steps = mapped(motion, middle + np.array([[1.0, 0], [0, 1.0], [0, 0]]))
    linear: NDArray[np.float32] = (steps[:2] - steps[2]).T.astype(np.float32)
    return linear


def _flow(before: Plane, after: Plane) -> NDArray[np.float32]:
    import cv2

    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    smallest = min(before.shape)
    if smallest < 32:
        return np.zeros((*before.shape, 2), np.float32)
    flow: NDArray[np.float32] = method.calc(np.ascontiguousarray(before), np.ascontiguousarray(after), None)
    return flow


def _background(flow: NDArray[np.float32], here: Plane, warped: Plane, known: Mask) -> NDArray[np.float32]:
    """The flow where it is known and believed, smoothly continued elsewhere."""
    import cv2

    grid = np.stack(np.meshgrid(np.arange(flow.shape[1]), np.arange(flow.shape[0])), -1).astype(np.float32)
    columns, rows = np.moveaxis(grid + flow, -1, 0)
    moved = cv2.remap(warped, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    mismatch = cv2.blur(np.abs(moved.astype(np.float32) - here) / 255, (5, 5))
    core = cv2.erode(known.astype(np.uint8), np.ones((2 * FLOW_MARGIN + 1,) * 2, np.uint8)) > 0
    believed = core & (mismatch < MAX_MISMATCH) & (np.abs(flow).max(-1) < MAX_PARALLAX)
    if not believed.any():
        return np.zeros_like(flow)
    smooth = membrane_interpolation(
        torch.from_numpy(np.moveaxis(flow, -1, 0).copy())[None], torch.from_numpy(~believed)[None, None]
    )
    return np.moveaxis(smooth[0].numpy(), 0, -1)


def _known_at(hole: Mask, at: NDArray[np.float32]) -> Mask:
    """Whether positions lie in the frame, and with all pixels beside them outside the hole."""
    import cv2

    height, width = hole.shape
    unknown = cv2.remap(hole.astype(np.float32), at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderValue=1.0)
    inside = (at[..., 0] >= 0) & (at[..., 0] <= width - 1) & (at[..., 1] >= 0) & (at[..., 1] <= height - 1)
    known: Mask = inside & (unknown < 0.01)
    return known
