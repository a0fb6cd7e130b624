"""Unrest: what moves by itself, and not with the camera."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from patchattn.tasks.video_inpainting.camera import Homography, Mask, Plane

__all__ = ["COMPARED", "RESTLESS", "Unrest", "unrest_of"]

Unrest = NDArray[np.uint8]
"""Unrest of each pixel of a frame, in levels of 255."""

COMPARED = (-8, -4, 4, 8)
"""Frames with which a frame is compared, counted from it."""
RESTLESS = 15
"""Unrest from which on a pixel is taken to move by itself."""
SMOOTHING = 5
"""Side of the square over which differences are averaged, in pixels."""


def unrest_of(here: Plane, others: Iterable[tuple[Plane, Mask, Homography]]) -> Unrest:
    """Smallest difference in luminance of each pixel from other frames, brought here by the motion of the camera.

    The background is the same in one of them at least; what moves by itself is in none. 0 where no other frame shows a
    pixel.

    Args:
        here: a frame.
        others: frames before and after it, their holes, and the homographies from this frame to them.
    """
    import cv2

    size, flags = here.shape[::-1], cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    least = np.full(here.shape, 255, np.uint8)
    shown = np.zeros(here.shape, bool)
    for plane, hole, motion in others:
        warped = cv2.warpPerspective(plane, motion, size, flags=flags)
        known = cv2.warpPerspective((~hole).astype(np.uint8), motion, size, flags=flags) > 0
        differs = cv2.blur(cv2.absdiff(warped, here), (SMOOTHING,) * 2)
        least = np.where(known, np.minimum(least, differs), least)
        shown |= known
    return np.where(shown, least, np.uint8(0))
