"""Completion of a video in one pass over its frames, after one that finds the motion of the camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.video_inpainting.alignment import Colors
from patchattn.tasks.video_inpainting.camera import CameraPath, Homography, Mask, tracked_motion
from patchattn.tasks.video_inpainting.filling import FrameFiller
from patchattn.tasks.video_inpainting.frame import Frame
from patchattn.tasks.video_inpainting.unrest import COMPARED, unrest_of

__all__ = ["FrameSource", "VideoInpainter"]

REACH = 20
"""Number of frames before and after a frame from which content comes, beside the key frames."""
MAX_KEY_FRAMES = 32
"""Largest number of frames of the whole video that are kept."""
MIN_KEY_INTERVAL = 10
"""Smallest number of frames between two key frames."""


class FrameSource(Protocol):
    """Frames and holes of a video, which can be read more than once."""

    def __len__(self) -> int:
        """Number of frames."""

    def starting_at(self, number: int) -> Iterator[tuple[NDArray[Any], Mask]]:
        """Yield samples (height, width, 1 or 3), of 8 or 16 bits, and the hole of each frame from this one on."""


class VideoInpainter:
    """Fill the holes of a video's frames in their order.

    Memory is that of `2 * REACH` frames and `MAX_KEY_FRAMES` more, however long the video is.

    Args:
        source: the frames. They are read once here, for the motion of the camera, and once more for the work.
        settings: those of `inpaint`, for what no frame shows.
        progress: called with the number of frames examined, and of all.
    """

    def __init__(
        self, source: FrameSource, settings: Mapping[str, Any], progress: Callable[[int, int], None] | None = None
    ) -> None:
        self._source = source
        self._interval = max(MIN_KEY_INTERVAL, -(-len(source) // MAX_KEY_FRAMES))
        self._keys: dict[int, Frame] = {}
        self._path = CameraPath.of(list(self._examine(progress)))
        for number, frame in self._keys.items():
            self._keys[number] = self._compared(frame, number, self._beside_keys)
        self._beside_keys.clear()
        self._fill = FrameFiller(self._path, settings)
        self._held: dict[int, Frame] = {}
        self._frames: Iterator[tuple[int, Frame]] | None = None

    def __call__(self, number: int) -> Colors:
        """Fill the hole of a frame; they are asked for one after another, from any one on."""
        self._read_around(number)
        frames = dict(self._keys)
        for other in range(max(0, number - REACH), min(len(self._source), number + REACH + 1)):
            if self._held[other].unrest is None:
                self._held[other] = self._compared(self._held[other], other, self._held)
            frames[other] = self._held[other]
        return self._fill(number, frames)

    def hole(self, number: int) -> Mask:
        """The hole of the frame that was filled last."""
        return self._held[number].hole

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is carried from frame to frame."""
        return self._fill.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore such a state."""
        self._fill.load_state_dict(state)

    def _examine(self, progress: Callable[[int, int], None] | None) -> Iterator[Homography | None]:
        """Yield the motion from each frame to the next, and keep key frames and those that they are compared with."""
        self._beside_keys: dict[int, Frame] = {}
        before: Frame | None = None
        for number, frame in self._read(0):
            if number % self._interval == 0:
                self._keys[number] = frame
            if any((number - step) % self._interval == 0 for step in COMPARED):
                # A copy of nothing: a view would hold the samples.
                self._beside_keys[number] = replace(frame, samples=frame.samples[:0].copy())
            if before is not None:
                yield tracked_motion(before.plane, frame.plane, ~before.hole, ~frame.hole)
            before = frame
            if progress is not None:
                progress(number + 1, len(self._source))

    def _compared(self, frame: Frame, number: int, frames: Mapping[int, Frame]) -> Frame:
        """A frame with its unrest."""
        others = []
        for step in COMPARED:
            other = number + step
            if 0 <= other < len(self._source) and (motion := self._path.motion(number, other)) is not None:
                others.append((frames[other].plane, frames[other].hole, motion))
        return replace(frame, unrest=unrest_of(frame.plane, others))

    def _read_around(self, number: int) -> None:
        """Hold all frames that this one needs, and no others."""
        first, last = number - REACH + min(COMPARED), min(len(self._source) - 1, number + REACH + max(COMPARED))
        first = max(0, first)
        if self._frames is None or first not in self._held:
            self._held, self._frames = {}, self._read(first)
        for other in [other for other in self._held if other < first]:
            del self._held[other]
        while last not in self._held:
            other, frame = next(self._frames)
            self._held[other] = frame

    def _read(self, first: int) -> Iterator[tuple[int, Frame]]:
        for number, (samples, hole) in enumerate(self._source.starting_at(first), first):
            yield number, Frame.of(np.ascontiguousarray(samples), hole)
