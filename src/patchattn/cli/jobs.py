"""A tool's work on one image or on a folder of them: checks before it, and the report after it."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast

from patchattn.cli.folders import FolderOptions, prepare_folders, report_folder
from patchattn.cli.options import on_device
from patchattn.cli.paths import check_apart
from patchattn.cli.printing import Told, report_picture
from patchattn.cli.reading import any_size, read, source_of
from patchattn.cli.stages import Stages
from patchattn.cli.writing import Target

if TYPE_CHECKING:
    from patchattn.tasks.folders import FolderImage
    from patchattn.tasks.images import Image
    from patchattn.tasks.sequences import ImageSequence

__all__ = ["Given", "Job", "JobFolder", "Model", "Result"]


@dataclass(frozen=True)
class Model:
    """The network that was asked for, if one was.

    Raises:
        ValueError: there is an attention without a network.
    """

    name: str | None
    """The value of --model."""
    attention: str | None = None
    """None: the command's default."""

    def __post_init__(self) -> None:
        if self.attention is not None and self.name is None:
            raise ValueError("--attention: it is the network's; expected --model too.")

    def digest(self) -> str:
        """Return a digest of the network's file, or the name of the one that comes along."""
        from patchattn.tasks.journal import digest_of_file

        if self.name is None or self.name == "default":
            return str(self.name)
        return digest_of_file(Path(self.name))


@dataclass(frozen=True)
class Given:
    """All that is read for one result."""

    picture: Image


class Result(Protocol):
    """The results of the functions of `tasks`."""

    @property
    def image(self) -> Image: ...


@dataclass(frozen=True)
class Written:
    """A file that was written."""

    result: Result
    """Of the last frame, if there are several."""
    frames: int
    seconds: float
    """Of the work, without reading and writing where there is one frame."""


Read = TypeVar("Read", bound=Given)


@dataclass(frozen=True)
class Job(ABC, Generic[Read]):
    """The arguments of a command that makes an image of PHOTO, or one of each image in the folder PHOTO."""

    photo: Path
    output: Path
    device: str
    settings: dict[str, Any]
    """Those of the function of `tasks`."""
    stage: Stages
    model: Model
    format: str | None = field(default=None, kw_only=True)
    """The value of --format."""

    command: ClassVar[str]
    argument: ClassVar[str] = "PHOTO"
    """The name of the command's first argument."""

    @abstractmethod
    def complete(self, path: Path, picture: Image) -> Read:
        """Read all that belongs to an image which was read from a path."""

    @abstractmethod
    def begin(self) -> Callable[[Read], Result]:
        """Load all that the work needs; returns the work, on images that are on the device."""

    def also_read(self) -> Mapping[str, Path | None]:
        """Files and folders that are read beside PHOTO, by argument: nothing is written over them."""
        return {}

    def also_written(self) -> Mapping[str, Path | None]:
        """Images that are written beside the result of one image, by argument."""
        return {}

    def write_more(self, result: Result) -> dict[str, str | None]:
        """Write these; returns their names for the report."""
        return {}

    def files_for(self, path: Path) -> list[Path]:
        """Files that are read for one image, beside itself."""
        return [other for other in self.also_read().values() if other is not None]

    def check_settings(self) -> None:
        """Refuse settings before a folder is made."""

    def writes_alpha(self, given: Read) -> bool:
        """Whether the result is transparent anywhere, as the image is."""
        return given.picture.alpha is not None

    def check_size(self, picture: Image, extension: str) -> None:
        """Refuse an image that cannot be written, before the work."""

    def run(self, options: FolderOptions) -> Told:
        """Do it."""
        self.check_apart()
        if self.photo.is_dir():
            return self._folder(options)
        options.refuse_for_one(self.photo)
        return self._one()

    def check_apart(self) -> None:
        """Refuse to write over what is read."""
        check_apart({"--output": self.output, **self.also_written()}, {self.argument: self.photo, **self.also_read()})

    def make(self, work: Callable[[Read], Result], path: Path, target: Target) -> Written:
        """Read an image, work on it, and write the result."""
        source = source_of(path, self.argument)
        sequence = target.frames_of(source, self.argument)
        if sequence is not None:
            return self._make_frames(work, path, sequence, target)
        given = self.complete(path, read(path, self.argument))
        # Before the work, not after it.
        target.check(bit_depth=given.picture.bit_depth, alpha=self.writes_alpha(given))
        self.check_size(given.picture, target.extension)
        began = time.perf_counter()
        result = self._worked(work, given)
        seconds = time.perf_counter() - began
        self.stage("writing")
        target.write(result.image)
        return Written(result, 1, seconds)

    def _make_frames(
        self, work: Callable[[Read], Result], path: Path, sequence: ImageSequence, target: Target
    ) -> Written:
        """Read an animation or pages, and write them as each is worked on."""
        results: list[Result] = []
        began = time.perf_counter()

        def frames() -> Iterator[Image]:
            for number, picture in enumerate(sequence, 1):
                self.stage(f"frame {number} of {len(sequence)}")
                self.check_size(picture, target.extension)
                results[:] = [self._worked(work, self.complete(path, picture))]
                yield results[0].image

        target.write_frames(frames(), sequence)
        return Written(results[0], len(sequence), time.perf_counter() - began)

    def _worked(self, work: Callable[[Read], Result], given: Read) -> Result:
        """Work on what was read, on the device."""
        result = work(replace(given, picture=_moved(given.picture, self.device)))
        # Every result is a dataclass.
        return cast("Result", replace(cast("Any", result), image=_moved(result.image, "cpu")))

    def _one(self) -> Told:
        from patchattn.tasks.peak_memory import peak_memory

        target = Target(self.output, self.format)
        target.check_place()
        for argument, path in self.also_written().items():
            if path is not None:
                Target(path, argument=argument).check()
        self.stage("reading")
        any_size()
        written = self.make(self.begin(), self.photo, target)
        result = written.result
        others = self.write_more(result)
        return report_picture(self.output, result.image, written.frames, written.seconds, peak_memory(), others)

    def _folder(self, options: FolderOptions) -> Told:
        from patchattn.tasks.folders import map_folder
        from patchattn.tasks.peak_memory import peak_memory

        self.check_settings()
        listing = prepare_folders(self.photo, self.output, options, argument=self.argument)
        work = self.begin()
        self.output.mkdir(exist_ok=True)
        began = time.perf_counter()
        folder_work = self.folder_work(work)
        report = map_folder(
            listing.images,
            self.output,
            folder_work,
            resume=options.resume,
            on_error=options.on_error,
            progress=self.stage,
        )
        folder_work.finish()
        return report_folder(report, listing, self.output, time.perf_counter() - began, peak_memory(), options)

    def folder_work(self, work: Callable[[Read], Result]) -> JobFolder[Read]:
        """The same work on the images of a folder."""
        return JobFolder(self, work)

    def key(self) -> str:
        """Return a digest of all that results depend on but the files."""
        from patchattn import __version__
        from patchattn.tasks.journal import digest_of

        settings = json.dumps(self.settings, sort_keys=True, default=str)
        return digest_of(
            self.command, __version__, settings, self.model.digest(), str(self.model.attention), str(self.format)
        )


class JobFolder(Generic[Read]):
    """The images of a folder, each worked on alone."""

    ordered = False

    def __init__(self, job: Job[Read], work: Callable[[Read], Result]) -> None:
        self._job, self._work, self._base = job, work, job.key()
        self._digests: dict[Path, str] = {}

    def key(self, source: FolderImage) -> str:
        from patchattn.tasks.journal import digest_of, digest_of_file

        shared = self._job.files_for(source.path)
        return digest_of(self._base, digest_of_file(source.path), *map(self._digest, shared))

    def make(self, source: FolderImage, target: Path) -> Path:
        path = Path(f"{target}{self._extension(source.path)}")
        read = {str(other): other for other in [source.path, *self._job.files_for(source.path)]}
        check_apart({"--output": path}, read)
        self._job.make(self._work, source.path, Target(path))
        return path

    def _extension(self, path: Path) -> str:
        """Animations stay in their format and pages in TIFF; all else becomes PNG."""
        from patchattn.tasks.sequences import SEQUENCE_FORMATS, count_frames
        from patchattn.tasks.sources import extension_of

        suffix = extension_of(path, self._job.format)
        if self._job.format is not None:
            return suffix
        if suffix not in SEQUENCE_FORMATS or count_frames(path, argument=self._job.argument) == 1:
            return ".png"
        return ".tif" if SEQUENCE_FORMATS[suffix] == "pages" else suffix

    def recorded(self, source: FolderImage, key: str, result: Path) -> None:
        """Nothing depends on it."""

    def finish(self) -> None:
        """Nothing is left behind."""

    def _digest(self, path: Path) -> str:
        """The digest of a file, which many images may share, is computed once."""
        from patchattn.tasks.journal import digest_of_file

        if path not in self._digests:
            self._digests[path] = digest_of_file(path)
        return self._digests[path]


def _moved(picture: Image, device: str) -> Image:
    alpha = None if picture.alpha is None else on_device(picture.alpha, device)
    return replace(picture, color=on_device(picture.color, device), alpha=alpha)
