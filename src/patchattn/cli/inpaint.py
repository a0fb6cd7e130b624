"""The command `inpaint`: an image, each image in a folder, or a video, completed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from patchattn.cli.commands import tool
from patchattn.cli.image_tool import Model
from patchattn.cli.inpaint_tool import InpaintTool
from patchattn.cli.inpaint_video_tool import InpaintFramesTool, inpaint_video
from patchattn.cli.options import FolderOptions, ImageToolOptions, ResumeVideo
from patchattn.cli.printing import Report
from patchattn.cli.stages import Stages
from patchattn.options import Option, values_of
from patchattn.tasks.settings import InpaintSettings

__all__ = ["inpaint"]


@dataclass(frozen=True, kw_only=True)
class InpaintOptions(InpaintSettings, ImageToolOptions):
    """Options of the command."""

    photo: Annotated[
        Path,
        Option(
            "The image with something to remove, a folder of images, or a video (.mp4, ...).",
            metavar="PHOTO",
            positional=True,
        ),
    ]
    output: Annotated[
        Path,
        Option(
            "Where to write: an image (.png, .tif, .webp, .jpg, .bmp); a folder, made if it is not there; or a video "
            "(.mp4, .mkv, .mov).",
            flags=("--output", "-o"),
        ),
    ]
    mask: Annotated[
        Path | None,
        Option(
            "An image of the same size that shows the hole: a light shape on black, or paint of one color on "
            "transparency, black, white or the photograph. For a folder: one for all, or a folder of masks of the "
            "same names. For a video: one for all, or a video or folder with one for each frame, black where "
            "nothing is to go.",
            shown_default="what is transparent in PHOTO",
        ),
    ] = None
    invert_mask: Annotated[bool, Option("The hole is what the mask leaves free.")] = False
    mask_color: Annotated[
        str | None,
        Option(
            "The hole is what has this color in the mask, a name or #rrggbb: within 40 of 255 levels of it in red, "
            "green and blue.",
            metavar="COLOR",
            shown_default="the shape's color",
        ),
    ] = None
    video: Annotated[bool, Option("Folder: its images are the frames of one video, in the order of their names.")] = (
        False
    )
    resume: ResumeVideo = False
    keep_out: Annotated[Path | None, Option("A mask of the same kind: nothing is copied from what it covers.")] = None
    model: Annotated[
        Path | None,
        Option(
            "Fill by a trained network instead: of `patchattn train inpainting`, or a public checkpoint. The options "
            "of patches do not count then. It is made for holes of some 128 pixels.",
            metavar="PATH",
        ),
    ] = None
    attention: Annotated[
        Literal["psal", "contextual"] | None,
        Option("What the network attends with.", shown_default="what it was trained with"),
    ] = None


@tool(InpaintOptions)
def inpaint(options: InpaintOptions, stage: Stages) -> Report:
    """Remove what MASK covers from PHOTO, and complete the image from its own patches, at its own resolution.

    With --model a network completes it.

    What the mask covers at all is hole, its soft edges too. Without a mask, every pixel that is not wholly opaque is,
    and the result is opaque. Every pixel outside the hole stays as it is (but for what a lossy format makes of it).

    A folder's images are written as NAME.png, each as soon as it is done.

    In a video, and with --video, what the hole hides is taken from frames that show it, after the motion of the camera;
    what none shows is completed once and carried along. A video keeps its times, sound, subtitles and title, and is
    written whole or not at all; after the process was killed, --resume goes on a few seconds before that.
    """
    from patchattn.tasks.video import VIDEO_SUFFIXES

    settings = values_of(options, InpaintSettings)
    if options.grow is None:
        del settings["grow"]  # it depends on the file
    if options.mask is None and (options.invert_mask or options.mask_color is not None):
        option = "--invert-mask" if options.invert_mask else "--mask-color"
        raise ValueError(f"{option}: it says how the mask is read; expected --mask too.")
    model = Model(None if options.model is None else str(options.model), options.attention)
    if options.keep_out is not None and model.name is not None:
        raise ValueError("--keep-out: a network (--model) copies no patches that could be kept out.")
    masks = (options.mask, options.keep_out, options.mask_color, options.invert_mask)
    is_video = options.photo.suffix.lower() in VIDEO_SUFFIXES and not options.photo.is_dir()
    if options.video and not options.photo.is_dir():
        raise ValueError(f"--video: it is for a folder of frames, which {options.photo} is not.")
    if (is_video or options.video) and options.keep_out is not None:
        raise ValueError("--keep-out: it is for images; of a video everything outside the hole may be copied.")
    kind = InpaintFramesTool if options.video else InpaintTool
    work = kind(options.photo, options.output, options, settings, stage, *masks, model=model)
    if not is_video:
        return work.run()
    work.check_apart()
    FolderOptions(on_error=options.on_error, recursive=options.recursive).refuse_for_one(options.photo)
    return inpaint_video(work)
