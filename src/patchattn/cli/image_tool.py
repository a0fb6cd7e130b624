"""A command that works on one image or on a folder of them: checks before the work, and the report after it."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar, cast

from patchattn.cli.folders import prepare_folders, report_folder
from patchattn.cli.options import ImageToolOptions, on_device
from patchattn.cli.paths import check_apart
from patchattn.cli.printing import Report, image_details, image_summary
from patchattn.cli.reading import any_size, read, source_of
from patchattn.cli.stages import Stages
from patchattn.cli.writing import Target

if TYPE_CHECKING:
    from patchattn.tasks.folders import FolderImage
    from patchattn.tasks.images import Image
    from patchattn.tasks.sequences import ImageSequence

__all__ = ["FolderOfImages", "Given", "ImageTool", "Model", "Result", "image_on_device"]


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
    """The input of one result."""

    image: Image


class Result(Protocol):
    """The results of the functions of `tasks`."""

    @property
    def image(self) -> Image: ...


@dataclass(frozen=True)
class Written:
    """A file that was written."""

    result: Result
    """Result of the last frame, if there are several."""
    frames: int
    seconds: float
    """Time of the work, without reading and writing where there is one frame."""


Read = TypeVar("Read", bound=Given)


@dataclass(frozen=True)
class ImageTool(ABC, Generic[Read]):
    """A command that makes an image of an image, or one of each image in a folder."""

    source: Path
    """The image or folder."""
    output: Path
    options: ImageToolOptions
    settings: dict[str, Any]
    """Settings of the function of `tasks`."""
    stage: Stages
    model: Model = field(default_factory=lambda: Model(None), kw_only=True)

    command: ClassVar[str]
    argument: ClassVar[str] = "PHOTO"
    """The name of the command's first argument."""

    @abstractmethod
    def complete(self, path: Path, image: Image) -> Read:
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

    def write_more(self, result: Result) -> dict[str, Any]:
        """Write these; returns the result's entries of the report for programs."""
        return {}

    def summary(self, result: Result) -> dict[str, object]:
        """Return the result's lines of the report for people."""
        return {}

    def files_for(self, path: Path) -> list[Path]:
        """Files that are read for one image, beside itself."""
        return [other for other in self.also_read().values() if other is not None]

    def check_settings(self) -> None:
        """Refuse settings before a folder is made."""

    def writes_alpha(self, given: Read) -> bool:
        """Whether the result is transparent anywhere, as the image is."""
        return given.image.alpha is not None

    def check_size(self, image: Image, extension: str) -> None:
        """Refuse an image that cannot be written, before the work."""

    def run(self) -> Report:
        """Do the work, and report it."""
        self.check_apart()
        if self.source.is_dir():
            return self._folder()
        self.options.refuse_for_one(self.source)
        return self._one()

    def check_apart(self) -> None:
        """Refuse to write over what is read."""
        check_apart({"--output": self.output, **self.also_written()}, {self.argument: self.source, **self.also_read()})

    def make(self, work: Callable[[Read], Result], path: Path, target: Target) -> Written:
        """Read an image, work on it, and write the result."""
        source = source_of(path, self.argument)
        sequence = target.frames_of(source, self.argument)
        if sequence is not None:
            return self._make_frames(work, path, sequence, target)
        given = self.complete(path, read(path, self.argument))
        # Before the work, not after it.
        target.check(bit_depth=given.image.bit_depth, alpha=self.writes_alpha(given))
        self.check_size(given.image, target.extension)
        began = time.perf_counter()
        result = self.worked(work, given)
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
            for number, image in enumerate(sequence, 1):
                self.stage(f"frame {number} of {len(sequence)}")
                self.check_size(image, target.extension)
                results[:] = [self.worked(work, self.complete(path, image))]
                yield results[0].image

        target.write_frames(frames(), sequence)
        return Written(results[0], len(sequence), time.perf_counter() - began)

    def worked(self, work: Callable[[Read], Result], given: Read) -> Result:
        """Work on what was read, on the device."""
        result = work(replace(given, image=image_on_device(given.image, self.options.device)))
        # Every result is a dataclass.
        return cast("Result", replace(cast("Any", result), image=image_on_device(result.image, "cpu")))

    def _one(self) -> Report:
        from patchattn.tasks.peak_memory import peak_memory

        target = Target(self.output, self.options.format)
        target.check_place()
        for argument, path in self.also_written().items():
            if path is not None:
                Target(path, argument=argument).check()
        self.stage("reading")
        any_size()
        written = self.make(self.begin(), self.source, target)
        result, details = written.result, self.write_more(written.result)
        return Report(
            output=self.output,
            done=[str(self.source)],
            seconds=written.seconds,
            peak_memory=peak_memory(),
            settings=self.settings,
            model=self.model.name,
            details={**details, **image_details(result.image, written.frames)},
            lines={"wrote": image_summary(self.output, result.image, written.frames), **self.summary(result)},
        )

    def _folder(self) -> Report:
        from patchattn.tasks.folders import map_folder
        from patchattn.tasks.peak_memory import peak_memory

        self.check_settings()
        listing = prepare_folders(self.source, self.output, self.options, argument=self.argument)
        work = self.begin()
        self.output.mkdir(exist_ok=True)
        began = time.perf_counter()
        folder_work = self.folder_work(work)
        report = map_folder(
            listing.images,
            self.output,
            folder_work,
            resume=self.options.resume,
            on_error=self.options.on_error,
            progress=self.stage,
        )
        folder_work.finish()
        return report_folder(
            report,
            listing,
            self.options,
            output=self.output,
            seconds=time.perf_counter() - began,
            peak_memory=peak_memory(),
            settings=self.settings,
            model=self.model.name,
        )

    def folder_work(self, work: Callable[[Read], Result]) -> FolderOfImages[Read]:
        """The same work on the images of a folder."""
        return FolderOfImages(self, work)

    def key(self) -> str:
        """Return a digest of all that results depend on but the files."""
        from patchattn import __version__
        from patchattn.tasks.journal import digest_of

        settings = json.dumps(self.settings, sort_keys=True, default=str)
        return digest_of(
            self.command,
            __version__,
            settings,
            self.model.digest(),
            str(self.model.attention),
            str(self.options.format),
        )


class FolderOfImages(Generic[Read]):
    """The images of a folder, each worked on alone."""

    ordered = False

    def __init__(self, tool: ImageTool[Read], work: Callable[[Read], Result]) -> None:
        self._tool, self._work, self._base = tool, work, tool.key()
        self._digests: dict[Path, str] = {}

    def key(self, source: FolderImage) -> str:
        from patchattn.tasks.journal import digest_of, digest_of_file

        shared = self._tool.files_for(source.path)
        return digest_of(self._base, digest_of_file(source.path), *map(self._digest, shared))

    def make(self, source: FolderImage, target: Path) -> Path:
        path = Path(f"{target}{self._extension(source.path)}")
        read = {str(other): other for other in [source.path, *self._tool.files_for(source.path)]}
        check_apart({"--output": path}, read)
        self._tool.make(self._work, source.path, Target(path))
        return path

    def _extension(self, path: Path) -> str:
        """Return the extension: animations stay in their format and pages in TIFF; all else becomes PNG."""
        from patchattn.tasks.sequences import SEQUENCE_FORMATS, count_frames
        from patchattn.tasks.sources import extension_of

        suffix = extension_of(path, self._tool.options.format)
        if self._tool.options.format is not None:
            return suffix
        if suffix not in SEQUENCE_FORMATS or count_frames(path, argument=self._tool.argument) == 1:
            return ".png"
        return ".tif" if SEQUENCE_FORMATS[suffix] == "pages" else suffix

    def recorded(self, source: FolderImage, key: str, result: Path) -> None:
        """Do nothing: no image depends on another."""

    def finish(self) -> None:
        """Do nothing: no state is kept."""

    def _digest(self, path: Path) -> str:
        """Return the digest of a file, computed once for all images that share it."""
        from patchattn.tasks.journal import digest_of_file

        if path not in self._digests:
            self._digests[path] = digest_of_file(path)
        return self._digests[path]


def image_on_device(image: Image, device: str) -> Image:
    """Move an image to the device that was asked for."""
    alpha = None if image.alpha is None else on_device(image.alpha, device)
    return replace(image, color=on_device(image.color, device), alpha=alpha)
