"""Holes of a video's frames, from an image, a video, a folder of images, or the frames' alpha."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchattn.tasks.folders import list_images
from patchattn.tasks.frame_files import FrameFiles
from patchattn.tasks.images import Image, read_image
from patchattn.tasks.journal import digest_of, digest_of_file
from patchattn.tasks.masks import MaskOptions, mask_coverage
from patchattn.tasks.pyramid import dilated
from patchattn.tasks.video import VIDEO_SUFFIXES, read_video_frames

__all__ = ["FramesWithHoles", "ReadableFrames", "frames_with_holes", "samples_of_color"]

MIN_LIGHT = 0.15
"""Luminance below which nothing of a mask is a shape: there is no hole in that frame."""


class ReadableFrames(Protocol):
    """Frames that can be read more than once: of a video, or of a folder."""

    def __len__(self) -> int: ...
    @property
    def path(self) -> Path: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def digest(self) -> str: ...
    @property
    def has_alpha(self) -> bool: ...
    def starting_at(self, first: int, *, alpha: bool = False) -> Iterator[Image]: ...


@dataclass(frozen=True)
class FramesWithHoles:
    """Frames and masks as `VideoInpainter` reads them."""

    frames: ReadableFrames
    masks: ReadableFrames | Tensor | None
    """A mask for each frame; one for all, as a coverage; None: the frames' alpha."""
    options: MaskOptions
    grow: int
    digest: str
    """Digest of the masks."""

    def __len__(self) -> int:
        return len(self.frames)

    def starting_at(self, number: int) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]:
        """Yield the samples and the hole of each frame from this one on."""
        images = self.frames.starting_at(number, alpha=self.masks is None)
        masks = None if self.masks is None or isinstance(self.masks, Tensor) else self.masks.starting_at(number)
        for place, image in enumerate(images, number):
            if masks is not None:
                covered = self._coverage(next(masks), place)
            elif isinstance(self.masks, Tensor):
                covered = self.masks
            else:
                covered = torch.zeros(image.size) if image.alpha is None else 1 - image.alpha[0, 0]
            yield samples_of_color(image), dilated((covered > 0)[None, None], self.grow)[0, 0].numpy()

    def _coverage(self, mask: Image, number: int) -> Tensor:
        if mask.alpha is None and self.options.color is None and bool(mask.color.amax() < MIN_LIGHT):
            return torch.full(mask.size, float(self.options.invert))
        assert self.masks is not None
        assert not isinstance(self.masks, Tensor)
        # A shape may cover most of one frame: none is taken for inverted.
        options = replace(self.options, invert_argument=None)
        return mask_coverage(mask, options, name=f"{self.masks.path}, frame {number + 1},")


def frames_with_holes(
    frames: ReadableFrames, mask: Path | None, options: MaskOptions, *, grow: int, frames_argument: str
) -> FramesWithHoles:
    """Frames with the holes that a mask file says.

    Args:
        frames: of a video, or of a folder.
        mask: an image for all frames; or a video or folder with a mask for each, in their order, where black frames
            have no hole. None: what is not opaque in the frames.
        options: how masks are read; see `mask_coverage`.
        grow: dilation in pixels.
        frames_argument: name of the frames in messages.

    Raises:
        ValueError: the masks do not fit the frames in size or number, or cannot be read.
    """
    if mask is None:
        if not frames.has_alpha:
            raise ValueError(
                f"{options.argument}: none is given, and {frames.path} has no transparent pixels to fill; expected a "
                "mask."
            )
        return FramesWithHoles(frames, None, options, grow, digest_of("alpha", str(grow)))
    masks: ReadableFrames | Tensor
    if mask.is_dir():
        files = list_images(mask, argument=options.argument).images
        masks = FrameFiles([file.path for file in files], options.argument)
    elif mask.suffix.lower() in VIDEO_SUFFIXES:
        masks = read_video_frames(mask, argument=options.argument)
    else:
        image = read_image(mask, argument=options.argument)
        _check_size(image.size, frames, mask, options, frames_argument)
        masks = mask_coverage(image, options, name=str(mask))
        digest = digest_of_file(mask)
    if not isinstance(masks, Tensor):
        _check_size(masks.size, frames, mask, options, frames_argument)
        if len(masks) != len(frames):
            raise ValueError(
                f"{options.argument}: {mask} has {len(masks)} frames, {frames_argument} has {len(frames)}; expected a "
                "mask for each frame, black where there is no hole, or one image for all."
            )
        digest = masks.digest
    return FramesWithHoles(frames, masks, options, grow, digest_of(digest, repr(options), str(grow)))


def samples_of_color(image: Image) -> NDArray[Any]:
    """Samples (height, width, 3) of an image: 8 bits if it has no more, else 16."""
    peak, kind = (255, np.uint8) if image.bit_depth <= 8 else (65535, np.uint16)
    color = image.color.expand(-1, 3, -1, -1)[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray((color.astype(np.float64) * peak + 0.5).astype(kind))


def _check_size(
    size: tuple[int, int], frames: ReadableFrames, mask: Path, options: MaskOptions, frames_argument: str
) -> None:
    if size == frames.size:
        return
    sizes = [f"{width} x {height}" for height, width in (size, frames.size)]
    raise ValueError(
        f"{options.argument}: {mask} has {sizes[0]} pixels, {frames_argument} has {sizes[1]}; expected the same size"
        + (
            " (it seems to lie on its side: turn it upright, as the frames are shown)."
            if size == frames.size[::-1]
            else "."
        )
    )
