"""A frame of a video with its hole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.extras import extra
from patchattn.tasks.video_inpainting.alignment import Colors
from patchattn.tasks.video_inpainting.camera import Mask, Plane
from patchattn.tasks.video_inpainting.unrest import Unrest

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """A frame and its hole."""

    samples: NDArray[Any]
    """(height, width, 1 or 3), of 8 or 16 bits."""
    hole: Mask
    plane: Plane
    """Luminance."""
    unrest: Unrest | None = None
    """None: it has not been compared with others."""

    @classmethod
    def of(cls, samples: NDArray[Any], hole: Mask) -> Frame:
        """Make a frame of its samples."""
        with extra("video"):
            import cv2
        eight = samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8)
        plane = eight[..., 0] if eight.shape[2] == 1 else cv2.cvtColor(eight, cv2.COLOR_RGB2GRAY)
        return cls(samples, hole, np.ascontiguousarray(plane))

    def colors(self) -> Colors:
        """Colors in [0, 1]."""
        scaled: Colors = self.samples.astype(np.float32) / np.float32(self.peak)
        return scaled

    @property
    def peak(self) -> int:
        """The largest value of a sample."""
        return int(np.iinfo(self.samples.dtype).max)
