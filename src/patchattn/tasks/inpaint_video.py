"""Inpainting of videos: holes filled from other frames, and by patches where none shows what they hide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from patchattn.checks import check_count
from patchattn.tasks.pyramid import dilated
from patchattn.tasks.video_inpainting.camera import Mask
from patchattn.tasks.video_inpainting.inpainter import VideoInpainter

__all__ = ["inpaint_video"]


def inpaint_video(
    frames: Float[Tensor, "frames channels height width"],
    holes: Bool[Tensor, "height width"] | Bool[Tensor, "frames height width"],
    *,
    grow: int = 0,
    quality: str = "good",
    patch_size: int = 11,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Float[Tensor, "frames channels height width"]:
    """Remove something from a video, steadily in time.

    1. The motion of the camera from frame to frame is a homography, fitted to features that are tracked.
    2. What a hole hides is taken from frames that show it: those are aligned with this one (the composed homography,
       refined by tracks around the hole and by dense flow), each pixel comes from one of them, and steps in color are
       closed by membrane interpolation.
    3. What no frame shows is completed once by `inpaint`, and carried along the motion of the camera to other frames.

    Content comes from 20 frames before and after, and from up to 32 key frames of the whole video; never over a cut.
    What moves by itself inside the hole (water, a crowd) does not move there as it should: it is taken from another
    time, or carried along like the background (docs/inpaint.md).

    Args:
        frames: values in [0, 1], of 1 or 3 channels. They are computed with in 16 bits.
        holes: masks of the pixels to fill (True), one for all frames or one for each.
        grow: dilation of the holes in pixels, for what is to go has left traces around its mask.
        quality, patch_size, seed: of `inpaint`, for what no frame shows.
        progress: called with each stage as it begins: "examining frame 1 of 9", "frame 1 of 9".

    Returns:
        The completed frames; known pixels are unchanged, to the last bit.

    Raises:
        ValueError: shapes do not fit, values are not in [0, 1], or there is nothing to copy from.
        RuntimeError: the extra `video` is not installed.

    Example:
        >>> frames = torch.rand(1, 3, 48, 64).expand(3, -1, -1, -1)  # the camera stands still
        >>> holes = torch.zeros(3, 48, 64, dtype=torch.bool)
        >>> holes[1, 20:30, 20:30] = True
        >>> filled = inpaint_video(frames, holes)  # doctest: +SKIP
    """
    checked = _checked(frames, holes)
    check_count("grow", grow, 0)
    source = _Tensors(frames, dilated(checked[:, None], grow)[:, 0])
    report = progress if progress is not None else _silent
    settings = {"quality": quality, "patch_size": patch_size, "seed": seed}
    inpainter = VideoInpainter(source, settings, lambda done, total: report(f"examining frame {done} of {total}"))
    filled = frames.clone()
    for number in range(len(frames)):
        report(f"frame {number + 1} of {len(frames)}")
        color = torch.from_numpy(np.moveaxis(inpainter(number), -1, 0)).to(frames)
        filled[number] = torch.where(source.holes[number], color, frames[number])
    return filled


@dataclass(frozen=True)
class _Tensors:
    """Frames and holes in memory."""

    frames: Tensor
    holes: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def starting_at(self, number: int) -> Iterator[tuple[NDArray[Any], Mask]]:
        for frame, hole in zip(self.frames[number:], self.holes[number:], strict=True):
            samples = frame.detach().cpu().double().movedim(0, -1).numpy()
            yield (samples * 65535 + 0.5).astype(np.uint16), hole.cpu().numpy()


def _checked(frames: Tensor, holes: Tensor) -> Tensor:
    """Return a hole for each frame."""
    if frames.dim() != 4 or frames.shape[1] not in (1, 3) or 0 in frames.shape or not frames.is_floating_point():
        raise ValueError(
            f"frames: got shape {tuple(frames.shape)} of {frames.dtype}; expected floats of shape (frames, 1 or 3, "
            "height, width)."
        )
    if not bool(((frames >= 0) & (frames <= 1)).all()):
        raise ValueError("frames: got values beside [0, 1]; expected colors in [0, 1].")
    count, _, *size = frames.shape
    if holes.dtype != torch.bool or list(holes.shape) not in (size, [count, *size]):
        raise ValueError(
            f"holes: got shape {tuple(holes.shape)} of {holes.dtype}; expected booleans of the frames' size, "
            f"{tuple(size)}, or of shape {(count, *size)}."
        )
    return holes.expand(count, *size)


def _silent(stage: str) -> None:
    pass
