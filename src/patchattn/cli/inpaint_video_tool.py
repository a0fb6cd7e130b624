"""`patchattn inpaint` on a video, or on a folder of frames as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from patchattn.cli.image_tool import FolderOfImages, Result
from patchattn.cli.inpaint_tool import GivenHole, InpaintTool
from patchattn.cli.ordered_folder import OrderedFolder
from patchattn.cli.printing import Report
from patchattn.cli.video_tool import run_video

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from patchattn.tasks.images import Image
    from patchattn.tasks.video_holes import FramesWithHoles, ReadableFrames
    from patchattn.tasks.video_inpainting.inpainter import VideoInpainter

__all__ = ["InpaintFramesTool", "inpaint_video"]

DEFAULT_GROW = 2
"""As around objects in a JPEG: nearly all videos have color at half the resolution."""


def inpaint_video(tool: InpaintTool) -> Report:
    """Complete a video file."""
    from patchattn.tasks.journal import digest_of
    from patchattn.tasks.video import check_video_output, read_video_frames

    check_video_output(tool.output, argument="--output")
    work = VideoProcessor(tool)
    # Masks are checked before anything is made.
    source = work.holes(read_video_frames(tool.source, argument=tool.argument))
    return run_video(
        tool,
        work.complete,
        state=work,
        settings=digest_of(tool.key(), source.digest),
        prepare=lambda frames, first: work.begin(replace(source, frames=frames), first),
    )


@dataclass(frozen=True)
class GivenFrame(GivenHole):
    """A frame of a folder."""

    number: int


@dataclass(frozen=True)
class InpaintFramesTool(InpaintTool):
    """The command `inpaint --video`: a folder of frames as one video."""

    def complete(self, path: Path, image: Image) -> GivenHole:
        return GivenFrame(image, None, None, self._frames.index(path))

    def writes_alpha(self, given: GivenHole) -> bool:
        return self.mask is not None and given.image.alpha is not None

    def files_for(self, path: Path) -> list[Path]:
        return []  # every frame depends on all files, see `key`

    def key(self) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(), "video", self._source.frames.digest, self._source.digest)

    def begin(self) -> FrameProcessor:
        work = VideoProcessor(self)
        work.begin(self._source, 0)
        return FrameProcessor(work)

    def folder_work(self, work: Callable[[GivenHole], Result]) -> FolderOfImages[GivenHole]:
        assert isinstance(work, FrameProcessor)
        return OrderedFolder(self, work)

    @cached_property
    def _frames(self) -> list[Path]:
        from patchattn.tasks.folders import list_images

        listing = list_images(
            self.source, recursive=self.options.recursive, exclude=self.output, argument=self.argument
        )
        return [image.path for image in listing.images]

    @cached_property
    def _source(self) -> FramesWithHoles:
        from patchattn.tasks.frame_files import FrameFiles

        return VideoProcessor(self).holes(FrameFiles(self._frames, self.argument))


class VideoProcessor:
    """Completion of frames in their order; what it carries is a state."""

    def __init__(self, tool: InpaintTool) -> None:
        self._tool = tool
        self._number = 0
        self._inpainter: VideoInpainter | None = None

    def holes(self, frames: ReadableFrames) -> FramesWithHoles:
        """Frames with the holes that --mask says."""
        from patchattn.cli.reading import any_size
        from patchattn.tasks.masks import MaskOptions
        from patchattn.tasks.video_holes import frames_with_holes

        any_size()
        tool = self._tool
        if tool.options.device != "cpu":
            raise ValueError(f"--device: got {tool.options.device}; a video is completed on the CPU.")
        options = MaskOptions(tool.mask_color, tool.invert_mask, "--mask", "--mask-color", "--invert-mask")
        grow = tool.settings.get("grow", DEFAULT_GROW)
        return frames_with_holes(frames, tool.mask, options, grow=grow, frames_argument=str(tool.source))

    def begin(self, source: FramesWithHoles, first: int) -> None:
        """Examine all frames, and go on at one of them."""
        import torch

        from patchattn.extras import extra
        from patchattn.tasks.video_inpainting.inpainter import VideoInpainter

        with extra("video"):
            import cv2
        # As many as PyTorch takes, which --threads has set.
        cv2.setNumThreads(torch.get_num_threads())
        settings = {name: value for name, value in self._tool.settings.items() if name != "grow"}

        def progress(done: int, total: int) -> None:
            self._tool.stage(f"examining frame {done} of {total}")

        self._inpainter = VideoInpainter(source, {**settings, "network": self._tool.network()}, progress)
        self._number = first

    def complete(self, image: Image) -> Image:
        """Complete the next frame."""
        import numpy as np
        import torch

        assert self._inpainter is not None
        filled = torch.from_numpy(np.moveaxis(self._inpainter(self._number), -1, 0))[None]
        hole = torch.from_numpy(self._inpainter.hole(self._number))
        self._number += 1
        gray = image.color.shape[1] == 1
        color = torch.where(hole, filled.mean(1, keepdim=True) if gray else filled, image.color)
        alpha = None if image.alpha is None or self._tool.mask is None else image.alpha
        return replace(image, color=color, alpha=alpha)

    def go_to(self, number: int) -> None:
        """Go on at another frame."""
        self._number = number

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is carried from frame to frame."""
        assert self._inpainter is not None
        return self._inpainter.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore such a state."""
        assert self._inpainter is not None
        self._inpainter.load_state_dict(state)


@dataclass(frozen=True)
class FrameResult:
    """A completed frame."""

    image: Image


@dataclass(frozen=True)
class FrameProcessor:
    """The same for the frames of a folder, some of which may be finished."""

    work: VideoProcessor

    def __call__(self, given: GivenHole) -> FrameResult:
        assert isinstance(given, GivenFrame)
        self.work.go_to(given.number)
        return FrameResult(self.work.complete(given.image))

    def follow(self, result: Image) -> None:
        """Do nothing: what was completed is not known from a result."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is carried from frame to frame."""
        return self.work.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore such a state."""
        self.work.load_state_dict(state)
