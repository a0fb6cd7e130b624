"""The command `colorize`: an image, each image in a folder, or a video, colored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from patchattn.cli.colorize_tool import ColorizeTool, color_video
from patchattn.cli.commands import tool
from patchattn.cli.image_tool import Model
from patchattn.cli.options import FolderOptions, ImageToolOptions, ResumeVideo, ShowField
from patchattn.cli.printing import Report
from patchattn.cli.stages import Stages
from patchattn.options import Option, values_of
from patchattn.tasks.settings import ColorizeSettings

__all__ = ["colorize"]


@dataclass(frozen=True, kw_only=True)
class ColorizeOptions(ColorizeSettings, ImageToolOptions):
    """Options of the command."""

    gray: Annotated[
        Path,
        Option("What to color: an image, a folder of images, or a video (.mp4, ...).", metavar="GRAY", positional=True),
    ]
    reference: Annotated[Path, Option("The image to take colors from; any size.", metavar="REFERENCE", positional=True)]
    output: Annotated[
        Path,
        Option(
            "Where to write: an image (.png, .tif, .webp, .jpg, .bmp); a folder, made if it is not there; or a video "
            "(.mp4, .mkv, .mov).",
            flags=("--output", "-o"),
        ),
    ]
    show_field: ShowField = None
    model: Annotated[
        str | None,
        Option(
            "Color by a trained network instead: a file of weights, or the network that ships with the package. The "
            "options of matching do not count then.",
            metavar="PATH|default",
        ),
    ] = None
    source: Annotated[
        Literal["reference", "previous"],
        Option(
            "Folder and video: color every image from the REFERENCE, or from the previous result. Errors of previous "
            "results add up.",
            flags=("--from",),
        ),
    ] = "reference"
    resume: ResumeVideo = False


@tool(ColorizeOptions)
def colorize(options: ColorizeOptions, stage: Stages) -> Report:
    """Color GRAY as what looks like it in REFERENCE is colored; brightness stays exactly as it is.

    A folder's images are taken in the order of their names, and written as NAME.png, each as soon as it is done; an
    interrupted run can go on with --resume. A video keeps its times, sound, subtitles and title, and is turned upright;
    high dynamic range becomes standard. What cannot be read of a damaged one is named, and the exit code is 1. It is
    written whole or not at all; after the process was killed, --resume goes on a few seconds before that.
    """
    from patchattn.tasks.video import VIDEO_SUFFIXES

    work = ColorizeTool(
        options.gray,
        options.output,
        options,
        values_of(options, ColorizeSettings),
        stage,
        options.reference,
        options.source,
        options.show_field,
        model=Model(options.model),
    )
    folder, video = options.gray.is_dir(), options.gray.suffix.lower() in VIDEO_SUFFIXES
    if options.show_field is not None and (folder or video):
        raise ValueError("--show-field: it is for one image; every image of a folder or video has its own.")
    if options.show_field is not None and options.model is not None:
        raise ValueError("--show-field: a network (--model) finds no matches to show.")
    if not video:
        return work.run()
    work.check_apart()
    FolderOptions(on_error=options.on_error, recursive=options.recursive).refuse_for_one(options.gray)
    return color_video(work)
