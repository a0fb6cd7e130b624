"""`patchattn colorize`, on an image, a folder or a video."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from patchattn.cli.image_tool import FolderOfImages, Given, ImageTool, Result, image_on_device
from patchattn.cli.options import on_device
from patchattn.cli.printing import Report
from patchattn.cli.reading import read
from patchattn.cli.writing import Target
from patchattn.tasks.warnings import FileWarning

if TYPE_CHECKING:
    from torch import Tensor, nn

    from patchattn.tasks.colorize import Colorization
    from patchattn.tasks.folders import FolderImage
    from patchattn.tasks.frame_colorizer import FrameColorizer
    from patchattn.tasks.images import Image

__all__ = ["ColorizeTool", "color_video"]

STATE = ".patchattn-state-"
"""Prefix of the names of files that hold the state after an image; its key follows."""
STATE_FORMAT = "patchattn state 1"
START = "start"
"""The key before the first image."""


@dataclass(frozen=True)
class ColorizeTool(ImageTool[Given]):
    """The command `colorize`."""

    reference: Path
    colors_from: str
    """The value of --from."""
    show_field: Path | None

    command: ClassVar[str] = "colorize"
    argument: ClassVar[str] = "GRAY"

    def complete(self, path: Path, image: Image) -> Given:
        return Given(image)

    def also_read(self) -> Mapping[str, Path | None]:
        return {"REFERENCE": self.reference}

    def also_written(self) -> Mapping[str, Path | None]:
        return {"--show-field": self.show_field}

    def begin(self) -> FrameProcessor:
        from patchattn.tasks.frame_colorizer import FrameColorizer

        self.stage("reading")
        reference = read(self.reference, "REFERENCE")
        if reference.color.shape[1] == 1:
            raise ValueError(f"REFERENCE: {self.reference} has one channel, gray; expected colors to take.")
        colorizer = FrameColorizer(
            image_on_device(reference, self.options.device),
            source=self.colors_from,
            network=self._network(),
            progress=self.stage,
            **self.settings,
        )
        return FrameProcessor(colorizer, self.options.device)

    def folder_work(self, work: Callable[[Given], Result]) -> FolderOfImages[Given]:
        assert isinstance(work, FrameProcessor)
        return OrderedFolder(self, work)

    def write_more(self, result: Result) -> dict[str, Any]:
        field = getattr(result, "field", None)
        if self.show_field is not None and field is not None:
            from patchattn.tasks.flow_image import flow_image

            drawn = flow_image(field.offsets()[0, 0, 0].cpu())
            Target(self.show_field, argument="--show-field").write(drawn)
        return {"show_field": None if self.show_field is None else str(self.show_field)}

    def summary(self, result: Result) -> dict[str, object]:
        return {"field": self.show_field}

    def key(self) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(), self.colors_from)

    def key_with_files(self) -> str:
        """Return a digest of all that the result depends on but the video."""
        from patchattn.tasks.journal import digest_of, digest_of_file

        return digest_of(self.key(), digest_of_file(self.reference))

    def _network(self) -> nn.Module | None:
        """Load the network that was asked for, if one was."""
        if self.model.name is None:
            return None
        from patchattn.networks.weights import load_colorization_network

        network: nn.Module = load_colorization_network(None if self.model.name == "default" else self.model.name)
        return on_device(network, self.options.device)


@dataclass(frozen=True)
class FrameProcessor:
    """A colorizer, called with all that is read for one result; its state is read and written on any device."""

    colorizer: FrameColorizer
    device: str

    def __call__(self, given: Given) -> Colorization:
        return self.colorizer(given.image)

    def follow(self, result: Image) -> None:
        """Go on from a result that was read from its file."""
        self.colorizer.follow(image_on_device(result, self.device))

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that is carried from image to image."""
        return self.colorizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""
        self.colorizer.load_state_dict({name: on_device(tensor, self.device) for name, tensor in state.items()})


class OrderedFolder(FolderOfImages[Given]):
    """The images of a folder in their order, each of which hands its state on to the next.

    The key of an image depends on those before it that succeeded, so that a result counts as finished only if it is
    what an uninterrupted run would have made. The state after the last finished image lies in the folder, and so does
    the one before an image that failed, for a later run that has more luck with it.
    """

    ordered = True

    def __init__(self, tool: ColorizeTool, work: FrameProcessor) -> None:
        super().__init__(tool, work)
        self._folder, self._colorizer = tool.output, work
        self._first = work.state_dict()
        self._chain = START
        """The key of the last image that succeeded."""
        self._held: str | None = START
        """The key of the image after which the colorizer's state is; None: the state is of no use."""
        self._last: Path | None = None
        """The last finished result."""
        self._needed: set[str] = set()
        """The keys whose states are needed for images that failed."""

    def key(self, source: FolderImage) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(source), self._chain)

    def make(self, source: FolderImage, target: Path) -> Path:
        from patchattn.networks.tensors import tensor_bytes
        from patchattn.tasks.files import atomic_writer

        self._go_on_from(self._chain)
        others = self._needed.copy()
        self._needed.add(self._chain)
        self._held = None
        path = super().make(source, target)
        key = self.key(source)
        with atomic_writer(self._state_file(key), argument="--output") as file:
            file.write(tensor_bytes(self._colorizer.state_dict(), {"format": STATE_FORMAT}))
        self._needed, self._held = others, key
        return path

    def recorded(self, source: FolderImage, key: str, result: Path) -> None:
        before, self._chain, self._last = self._chain, key, result
        if before not in self._needed:
            self._state_file(before).unlink(missing_ok=True)

    def finish(self) -> None:
        for path in self._folder.glob(f"{STATE}*"):
            if path.name.removeprefix(STATE) not in self._needed:
                path.unlink(missing_ok=True)

    def _go_on_from(self, key: str) -> None:
        """Give the colorizer the state after an image: of an earlier run, or of before a failure."""
        if key == self._held:
            return
        from patchattn.networks.tensors import read_tensors

        path = self._state_file(key)
        self._colorizer.load_state_dict(self._first)
        if path.is_file():
            self._colorizer.load_state_dict(read_tensors(path, STATE_FORMAT, argument="--output")[0])
        elif self._last is not None:
            self._colorizer.follow(read(self._last, "--output"))
            warnings.warn(
                f"--output: the state after the last finished image is not in {self._folder} any more; the search of "
                "the next one starts afresh, and single pixels may differ from those of an uninterrupted run.",
                FileWarning,
                stacklevel=2,
            )
        self._held = key

    def _state_file(self, key: str) -> Path:
        return self._folder / f"{STATE}{key}"


def color_video(tool: ColorizeTool) -> Report:
    """Color a video."""
    from patchattn.tasks.peak_memory import peak_memory
    from patchattn.tasks.video import check_video_output, map_video

    check_video_output(tool.output, argument="--output")
    work = tool.begin()
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        tool.stage(f"frame {done + 1} of {total}" if total else f"frame {done + 1}")

    video = map_video(
        tool.source,
        tool.output,
        lambda image: tool.worked(work, Given(image)).image,
        state=work,
        resume=tool.options.resume,
        settings=tool.key_with_files(),
        progress=progress,
        source_argument="GRAY",
        output_argument="--output",
        resume_argument="--resume",
    )
    height, width = video.size
    rate = float(video.rate)
    return Report(
        output=tool.output,
        done=[str(tool.source)],
        finished_before=video.finished_before,
        seconds=time.perf_counter() - began,
        peak_memory=peak_memory(),
        settings=tool.settings,
        model=tool.model.name,
        details={
            "frames": video.frames,
            "height": height,
            "width": width,
            "rate": rate,
            "sounds": video.audio_streams,
            "missing": list(video.missing),
        },
        lines={
            "wrote": f"{tool.output} ({video.frames} frames of {width} x {height}, {rate:.3g} a second)",
            "finished before": video.finished_before if tool.options.resume else None,
            "missing": "\n".join(video.missing) or None,
            "sound": f"{video.audio_streams} copied",
        },
        is_incomplete=bool(video.missing),
    )
