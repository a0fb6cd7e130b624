"""Work of `patchattn colorize` on an image, a folder or a video."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from patchattn.cli.jobs import Given, Job, JobFolder, Result
from patchattn.cli.printing import Told, megabytes
from patchattn.cli.reading import read
from patchattn.cli.writing import Target
from patchattn.tasks.warnings import FileWarning

if TYPE_CHECKING:
    from torch import nn

    from patchattn.tasks.colorize import Colorization
    from patchattn.tasks.folders import FolderImage
    from patchattn.tasks.frame_colorizer import FrameColorizer
    from patchattn.tasks.images import Image

__all__ = ["ColorizeJob", "color_video"]

STATE = ".patchattn-state-"
"""How the names of the files begin that hold the state after an image; its key follows."""
STATE_FORMAT = "patchattn state 1"
START = "start"
"""The key before the first image."""


@dataclass(frozen=True)
class ColorizeJob(Job[Given]):
    """The arguments of the command."""

    reference: Path
    source: str
    """The value of --from."""
    show_field: Path | None

    command: ClassVar[str] = "colorize"
    argument: ClassVar[str] = "GRAY"

    def complete(self, path: Path, picture: Image) -> Given:
        return Given(picture)

    def also_read(self) -> Mapping[str, Path | None]:
        return {"REFERENCE": self.reference}

    def also_written(self) -> Mapping[str, Path | None]:
        return {"--show-field": self.show_field}

    def begin(self) -> ColorWork:
        return ColorWork(self.colorizer())

    def colorizer(self) -> FrameColorizer:
        """Make the object that colors one image after another."""
        from patchattn.tasks.frame_colorizer import FrameColorizer

        self.stage("reading")
        reference = read(self.reference, "REFERENCE")
        if reference.color.shape[1] == 1:
            raise ValueError(f"REFERENCE: {self.reference} has one channel, gray; expected colors to take.")
        network = self._network()
        return FrameColorizer(reference, source=self.source, network=network, progress=self.stage, **self.settings)

    def folder_work(self, work: Callable[[Given], Result]) -> JobFolder[Given]:
        assert isinstance(work, ColorWork)
        return OrderedFolder(self, work)

    def write_more(self, result: Result) -> dict[str, str | None]:
        field = getattr(result, "field", None)
        if self.show_field is not None and field is not None:
            from patchattn.tasks.flow_image import flow_image

            drawn = flow_image(field.offsets()[0, 0, 0])
            Target(self.show_field, argument="--show-field").write(drawn)
        return {"show_field": None if self.show_field is None else str(self.show_field)}

    def key(self) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(), self.source)

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
        return network


@dataclass(frozen=True)
class ColorWork:
    """A colorizer, called with all that is read for one result."""

    colorizer: FrameColorizer

    def __call__(self, given: Given) -> Colorization:
        return self.colorizer(given.picture)


class OrderedFolder(JobFolder[Given]):
    """The images of a folder in their order, each of which hands its state on to the next.

    The key of an image depends on those before it that succeeded, so that a result counts as finished only if it is
    what an uninterrupted run would have made. The state after the last finished image lies in the folder, and so does
    the one before an image that failed, for a later run that has more luck with it.
    """

    ordered = True

    def __init__(self, job: ColorizeJob, work: ColorWork) -> None:
        super().__init__(job, work)
        self._folder, self._colorizer = job.output, work.colorizer
        self._first = work.colorizer.state_dict()
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


def color_video(job: ColorizeJob, resume: bool) -> Told:
    """Color a video."""
    from patchattn.tasks.peak_memory import peak_memory
    from patchattn.tasks.video import check_video_output, map_video

    check_video_output(job.output, argument="--output")
    colorizer = job.colorizer()
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        job.stage(f"frame {done + 1} of {total}" if total else f"frame {done + 1}")

    film = map_video(
        job.photo,
        job.output,
        lambda picture: colorizer(picture).image,
        state=colorizer,
        resume=resume,
        settings=job.key_with_files(),
        progress=progress,
        source_argument="GRAY",
        output_argument="--output",
        resume_argument="--resume",
    )
    seconds, memory = time.perf_counter() - began, peak_memory()
    height, width = film.size
    return Told(
        {
            "frames": film.frames,
            "height": height,
            "width": width,
            "rate": float(film.rate),
            "sounds": film.audio_streams,
            "missing": list(film.missing),
            "finished_before": film.finished_before,
            "seconds": seconds,
            "peak_memory_bytes": memory,
        },
        {
            "wrote": f"{job.output} ({film.frames} frames of {width} x {height}, {float(film.rate):.3g} a second)",
            "finished before": film.finished_before if resume else None,
            "missing": "\n".join(film.missing) or None,
            "sound": f"{film.audio_streams} copied",
            "time": f"{seconds:.2f} s",
            "memory": megabytes(memory),
        },
        incomplete=bool(film.missing),
    )
