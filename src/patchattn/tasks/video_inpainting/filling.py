"""Filling of one frame's hole: from other frames, from what was completed before, and by patches of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.video_inpainting.alignment import Aligned, Box, Colors, align, visible_through
from patchattn.tasks.video_inpainting.camera import CameraPath, Homography, Mask, refined
from patchattn.tasks.video_inpainting.frame import Frame
from patchattn.tasks.video_inpainting.stitching import best_sources, filled_from, first_sources, lighting
from patchattn.tasks.video_inpainting.unrest import RESTLESS
from patchattn.tasks.video_inpainting.views import chosen_views

__all__ = ["FrameFiller"]

MARGIN = 48
"""Width of the surroundings of a hole that are aligned, in pixels."""
MAX_COMPLETED = 6
"""Number of frames whose completions are carried to others."""
MIN_CARRIED = 0.01
"""Smallest share of a hole whose completion is carried on."""


@dataclass(frozen=True)
class Completed:
    """Content completed by patches in one frame, for others."""

    number: int
    frame: Frame
    """The frame with its hole filled. Its own hole is all but what was completed."""


class FrameFiller:
    """Fill the holes of frames one after another.

    Args:
        path: motion of the camera.
        settings: those of `inpaint`, for what no frame shows.
    """

    def __init__(self, path: CameraPath, settings: Mapping[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._completed: list[Completed] = []

    def __call__(self, number: int, frames: Mapping[int, Frame]) -> Colors:
        """Fill the hole of a frame.

        Args:
            number: of the frame.
            frames: this one, and those that content may come from.
        """
        frame = frames[number]
        colors = frame.colors()
        if not frame.hole.any():
            return colors
        box = Box.around(frame.hole, MARGIN)
        here, hole = box.of(colors), box.of(frame.hole)
        sources = self._sources(number, box, here, frames)
        labels = best_sources(hole, sources)
        here = filled_from(here, hole, labels, sources)
        hole = hole & (labels < 0)
        if hole.any():
            here, hole = self._carried(number, frame, box, here, hole)
        box.of(colors)[:] = here
        return self._complete(number, frame, box, colors, hole) if hole.any() else colors

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is carried to later frames."""
        state = {}
        for place, one in enumerate(self._completed):
            state[f"{place}.number"] = torch.tensor(one.number)
            state[f"{place}.samples"] = torch.from_numpy(one.frame.samples.astype(np.int32))
            state[f"{place}.hole"] = torch.from_numpy(one.frame.hole)
            state[f"{place}.peak"] = torch.tensor(one.frame.peak)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore such a state."""
        self._completed = []
        while (place := len(self._completed)) < len(state) // 4:
            number, samples, hole, peak = (state[f"{place}.{name}"] for name in ("number", "samples", "hole", "peak"))
            kind = np.uint8 if int(peak) == np.iinfo(np.uint8).max else np.uint16
            self._completed.append(Completed(int(number), Frame.of(samples.numpy().astype(kind), hole.numpy())))

    def _sources(self, number: int, box: Box, here: Colors, frames: Mapping[int, Frame]) -> list[Aligned]:
        """Frames that show what the hole hides, aligned."""
        motions: dict[int, Homography] = {}
        for other in sorted(frames):
            motion = self._path.motion(number, other)
            if motion is not None and other != number:
                motions[other] = motion
        holes = {other: frames[other].hole for other in motions}
        restless = {other: hole | _restless(frames[other]) for other, hole in holes.items()}
        chosen = chosen_views(number, box.of(frames[number].hole), box, motions, holes, restless)
        hole = box.of(frames[number].hole)
        return [
            self._aligned(frames[number], frames[other], motions[other], box, here, hole, abs(other - number))
            for other in chosen
        ]

    def _aligned(
        self, frame: Frame, other: Frame, motion: Homography, box: Box, here: Colors, hole: Mask, distance: int
    ) -> Aligned:
        import cv2

        near = np.zeros_like(frame.hole)
        box.of(near)[:] = True
        motion = refined(frame.plane, other.plane, ~frame.hole & near, ~other.hole, motion)
        color, valid, at = align(box.of(frame.plane), hole, other.plane, other.samples, other.hole, motion, box)
        shift, error = lighting(here, hole, color, valid)
        unrest = np.zeros_like(error)
        if other.unrest is not None:
            unrest = cv2.remap(other.unrest, at[..., 0], at[..., 1], cv2.INTER_LINEAR).astype(np.float32) / 255
        return Aligned((color + shift).clip(0, 1), valid, distance, error, unrest)

    def _carried(self, number: int, frame: Frame, box: Box, here: Colors, hole: Mask) -> tuple[Colors, Mask]:
        """Fill with what was completed in other frames; returns what is left."""
        sources = []
        for one in self._completed:
            motion = self._path.motion(number, one.number)
            if motion is None or not (visible_through(one.frame.hole, motion, box) & hole).any():
                continue
            whole = replace(one.frame, hole=np.zeros_like(one.frame.hole))
            aligned = self._aligned(frame, whole, motion, box, here, hole, abs(number - one.number))
            sources.append(replace(aligned, valid=aligned.valid & visible_through(one.frame.hole, motion, box)))
        labels = first_sources(hole, sources)
        return filled_from(here, hole, labels, sources), hole & (labels < 0)

    def _complete(self, number: int, frame: Frame, box: Box, colors: Colors, rest: Mask) -> Colors:
        """Complete what no frame shows by patches, and keep it for other frames."""
        left = np.zeros_like(frame.hole)
        box.of(left)[:] = rest
        image = torch.from_numpy(np.moveaxis(colors, -1, 0).copy())[None]
        result = inpaint(image, torch.from_numpy(left), **self._settings)
        completed: Colors = np.ascontiguousarray(np.moveaxis(result.image.color[0].numpy(), 0, -1))
        if left.sum() > MIN_CARRIED * frame.hole.sum():
            samples = (completed * frame.peak + 0.5).astype(frame.samples.dtype)
            self._completed.append(Completed(number, Frame.of(samples, ~left)))
            del self._completed[:-MAX_COMPLETED]
        return completed


def _restless(frame: Frame) -> Mask:
    """Where a frame shows something that moves by itself."""
    if frame.unrest is None:
        return np.zeros_like(frame.hole)
    restless: Mask = frame.unrest > RESTLESS
    return restless
