"""Options that several commands share, each declared once: single ones as types, and groups of them as dataclasses.

A command's options are a dataclass that inherits the groups; its own fields come first in `--help`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar, cast

from patchattn.options import Option

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "BasicOptions",
    "CommandOptions",
    "FolderOptions",
    "ImageToolOptions",
    "Output",
    "ProcessingOptions",
    "ResumeVideo",
    "ShowField",
    "ToolOptions",
    "on_device",
    "use_threads",
]

Movable = TypeVar("Movable", bound="Tensor | nn.Module")

Output = Annotated[
    Path,
    Option(
        "Where to write: an image (.png, .tif, .webp, .jpg, .bmp), or a folder, made if it is not there.",
        flags=("--output", "-o"),
    ),
]
ResumeVideo = Annotated[
    bool,
    Option(
        "Folder: leave images alone that are finished with the same settings, and go on after them. Video: go on "
        "with the frames that an interrupted run finished; keep them if this one is interrupted."
    ),
]
"""--resume of tools that take videos too."""
ShowField = Annotated[
    Path | None, Option("Where to write an image of the offsets: hue is the direction, saturation the length.")
]


@dataclass(frozen=True, kw_only=True)
class BasicOptions:
    """Options of every command."""

    debug: Annotated[bool, Option("At an error, show its traceback too.")] = False


@dataclass(frozen=True, kw_only=True)
class CommandOptions(BasicOptions):
    """Options of every command that prints a result."""

    as_json: Annotated[bool, Option("Print one JSON object on stdout, and nothing else.", flags=("--json",))] = False


@dataclass(frozen=True, kw_only=True)
class ProcessingOptions(CommandOptions):
    """Options of every command that computes for long."""

    threads: Annotated[int | None, Option("Threads to use.", min=1, shown_default="one for each core")] = None


@dataclass(frozen=True, kw_only=True)
class FolderOptions:
    """Options that count where a folder is given."""

    resume: Annotated[
        bool, Option("Folder: leave images alone that are finished with the same settings, and go on after them.")
    ] = False
    on_error: Annotated[
        Literal["stop", "skip"],
        Option("Folder: at an image that fails, stop, or skip it, name it and exit with 1 at the end."),
    ] = "stop"
    recursive: Annotated[bool, Option("Folder: look into its subfolders too; results are laid out alike.")] = False

    def refuse_for_one(self, given: Path) -> None:
        """Refuse them where one image is given."""
        if self.resume or self.on_error != "stop" or self.recursive:
            raise ValueError(f"--resume, --on-error and --recursive are for a folder, which {given} is not.")


@dataclass(frozen=True, kw_only=True)
class ToolOptions(FolderOptions, ProcessingOptions):
    """Options of every command that makes something of an image, or of each image in a folder."""

    device: Annotated[str, Option("Where to compute: cpu, cuda, xpu, ...")] = "cpu"


@dataclass(frozen=True, kw_only=True)
class ImageToolOptions(ToolOptions):
    """Options of every command that makes images of images."""

    format: Annotated[
        str | None,
        Option(
            "Format of the result: png, tif, webp, jpg or bmp; gif or apng for an animation.",
            metavar="NAME",
            shown_default="the extension of --output; png for standard output",
        ),
    ] = None


def use_threads(threads: int | None) -> None:
    """Set the number of threads; None: as many as PyTorch takes."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def on_device(moved: Movable, device: str) -> Movable:
    """Move a tensor or a network to the device that was asked for."""
    try:
        return cast("Movable", moved.to(device))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: cannot compute on {device} ({str(error).splitlines()[0]}).") from error
