"""A tool's work on one picture or on a folder of them: what must be right before it, and what is told after it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from patchattn.cli.folders import check_one_picture, prepare_folders, tell_folder
from patchattn.cli.options import on_device
from patchattn.cli.paths import check_apart
from patchattn.cli.printing import Told, tell_picture
from patchattn.cli.stages import Stages

if TYPE_CHECKING:
    from patchattn.tasks.images import Picture

__all__ = ["Given", "Job", "Model", "Result"]


@dataclass(frozen=True)
class Model:
    """The network that was asked for, if one was.

    Raises:
        ValueError: there is an attention without a network.
    """

    name: str | None
    """What --model was."""
    attention: str | None
    """None: the command's default."""

    def __post_init__(self) -> None:
        if self.attention is not None and self.name is None:
            raise ValueError("--attention: it is the network's; expected --model too.")


@dataclass(frozen=True)
class Given:
    """What is read for one result."""

    picture: Picture


class Result(Protocol):
    """What the functions of `tasks` return."""

    @property
    def picture(self) -> Picture: ...

    @property
    def peak_memory(self) -> int | None: ...


Read = TypeVar("Read", bound=Given)


@dataclass(frozen=True)
class Job(ABC, Generic[Read]):
    """The arguments of a command that makes a picture of PHOTO, or one of each picture in the folder PHOTO."""

    photo: Path
    output: Path
    device: str
    settings: dict[str, Any]
    """Those of the function of `tasks`."""
    stage: Stages
    model: Model

    done: ClassVar[str]
    """What programs read the finished pictures of a folder by."""

    @abstractmethod
    def read(self, path: Path) -> Read:
        """Read a picture and what belongs to it."""

    @abstractmethod
    def begin(self) -> Callable[[Read], Result]:
        """Load what the work needs; returns the work, on pictures that are on the device."""

    def also_read(self) -> Mapping[str, Path | None]:
        """What is read beside PHOTO, by argument: nothing is written over it."""
        return {}

    def check_settings(self) -> None:
        """Refuse settings before a folder is made."""

    def writes_alpha(self, given: Read) -> bool:
        """Whether the result is transparent anywhere, as the picture is."""
        return given.picture.alpha is not None

    def check_size(self, picture: Picture) -> None:
        """Refuse what cannot be written before the work."""

    def run(self, resume: bool, on_error: str) -> Told:
        """Do it."""
        check_apart({"--output": self.output}, {"PHOTO": self.photo, **self.also_read()})
        if self.photo.is_dir():
            return self._folder(resume, on_error)
        check_one_picture(self.photo, resume, on_error)
        return self._picture()

    def _picture(self) -> Told:
        from patchattn.tasks import images

        images.check_picture_output(self.output, argument="--output")
        self.stage("reading")
        given = self.read(self.photo)
        # Before the work, not after it.
        depth, alpha = given.picture.bit_depth, self.writes_alpha(given)
        images.check_picture_output(self.output, bit_depth=depth, alpha=alpha, argument="--output")
        self.check_size(given.picture)
        work = self.begin()
        began = time.perf_counter()
        made, memory = self._made(work, given)
        seconds = time.perf_counter() - began
        self.stage("writing")
        images.write_picture(self.output, made, argument="--output")
        return tell_picture(self.output, made, seconds, memory)

    def _folder(self, resume: bool, on_error: str) -> Told:
        from patchattn.tasks.folders import map_folder
        from patchattn.tasks.peak_memory import peak_memory

        self.check_settings()
        pictures = prepare_folders(self.photo, self.output, on_error, argument="PHOTO")
        work = self.begin()
        self.output.mkdir(exist_ok=True)
        began = time.perf_counter()
        report = map_folder(
            pictures,
            self.output,
            self.read,
            lambda given: self._made(work, given)[0],
            resume=resume,
            on_error=on_error,
            progress=self.stage,
            output_argument="--output",
        )
        return tell_folder(self.done, report, self.output, time.perf_counter() - began, peak_memory(), resume)

    def _made(self, work: Callable[[Read], Result], given: Read) -> tuple[Picture, int | None]:
        result = work(replace(given, picture=_moved(given.picture, self.device)))
        return _moved(result.picture, "cpu"), result.peak_memory


def _moved(picture: Picture, device: str) -> Picture:
    alpha = None if picture.alpha is None else on_device(picture.alpha, device)
    return replace(picture, colour=on_device(picture.colour, device), alpha=alpha)
