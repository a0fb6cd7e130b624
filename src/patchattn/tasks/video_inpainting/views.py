"""Choice of the frames that together show what a hole hides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from patchattn.tasks.video_inpainting.alignment import Box, visible_through
from patchattn.tasks.video_inpainting.camera import Homography, Mask

__all__ = ["chosen_views"]

STEP = 3
"""Visibility is asked at every third pixel: which frames show a part of the hole does not hang on single ones."""
MAX_VIEWS = 14
"""Largest number of frames that are aligned with one."""
WANTED_VIEWS = 3
"""Number of frames that are to show each pixel, so that what passes through one of them is seen to differ."""
FURTHER = 0.25
"""Worth of a further view of a pixel in relation to its first."""
DISTANCE_SCALE = 4.0
"""Number of frames away at which a view is worth half: alignment gets worse, light and things change."""
MIN_WORTH = 0.004
"""Smallest worth, as a share of the hole, for which a frame is aligned."""


def chosen_views(
    number: int,
    hole: Mask,
    box: Box,
    motions: Mapping[int, Homography],
    holes: Mapping[int, Mask],
    restless: Mapping[int, Mask],
) -> list[int]:
    """Choose frames, the most worthwhile first: each shows much that those before it do not, and is near in time.

    Args:
        number: of this frame.
        hole: in the rectangle.
        box: the rectangle.
        motions: homographies from this frame to the others.
        holes: of the others.
        restless: the same, and where the others show something that moves by itself, which may hide the background.
    """
    asked = hole[::STEP, ::STEP]
    size = max(1, int(asked.sum()))
    seen, calm = (
        {other: visible_through(unseen[other], motion, box, STEP)[asked] for other, motion in motions.items()}
        for unseen in (holes, restless)
    )
    views, calm_views = np.zeros((2, int(asked.sum())), int)
    chosen: list[int] = []

    def worth(other: int) -> float:
        new, calm_new = (views[seen[other]] == 0).sum(), (calm_views[calm[other]] == 0).sum()
        further = (calm_views[calm[other]] < WANTED_VIEWS).sum()
        return float((new + calm_new + FURTHER * further) / (1 + abs(other - number) / DISTANCE_SCALE))

    while seen and len(chosen) < MAX_VIEWS:
        best = max(seen, key=worth)
        if worth(best) < MIN_WORTH * size:
            break
        views += seen.pop(best)
        calm_views += calm[best]
        chosen.append(best)
    return chosen
