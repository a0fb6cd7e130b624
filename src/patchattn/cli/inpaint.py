"""The command `inpaint`: one picture, or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.folders import FolderOptions, OnError, Recursive, Resume
from patchattn.cli.inpaint_jobs import InpaintJob
from patchattn.cli.jobs import Model
from patchattn.cli.options import Json, PatchSize, Seed, Threads, use_threads
from patchattn.cli.printing import tell
from patchattn.cli.stages import stages
from patchattn.cli.writing import Format

__all__ = ["inpaint"]


def inpaint(
    photo: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="The picture with something to remove, or a folder of pictures.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where to write: a picture (.png, .tif, .webp, .jpg, .bmp), or a folder, made if it is not there.",
        ),
    ],
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A picture of the same size that shows the hole: a light shape on black, or paint of one color on "
            "transparency, black, white or the photograph. For a folder: one for all, or a folder of masks of the "
            "same names.",
            show_default="what is transparent in PHOTO",
        ),
    ] = None,
    invert_mask: Annotated[bool, typer.Option("--invert-mask", help="The hole is what the mask leaves free.")] = False,
    mask_color: Annotated[
        str | None,
        typer.Option(
            metavar="COLOR",
            help="The hole is what has this color in the mask, a name or #rrggbb: within 40 of 255 levels of it in "
            "red, green and blue.",
            show_default="the shape's color",
        ),
    ] = None,
    grow: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Widen the hole on all sides, where what is to go has left traces around it.",
            show_default="2 around objects in a JPEG photograph, else 0",
        ),
    ] = None,
    keep_out: Annotated[
        Path | None, typer.Option(help="A mask of the same kind: nothing is copied from what it covers.")
    ] = None,
    quality: Annotated[str, typer.Option(help="How long to improve: fast, good or best.")] = "good",
    patch_size: PatchSize = 11,
    levels: Annotated[
        int | None,
        typer.Option(min=1, help="How many sizes, each half the next.", show_default="until the hole is a patch wide"),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Searches and votes at each size.", show_default="the quality's")
    ] = None,
    seed: Seed = 0,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Fill by a trained network instead: of `patchattn train inpainting`, or a public checkpoint. The "
            "options of patches do not count then. It is made for holes of some 128 pixels.",
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="What the network attends with: psal or contextual.", show_default="what it was trained with"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, xpu, ...")] = "cpu",
    resume: Resume = False,
    on_error: OnError = "stop",
    recursive: Recursive = False,
    format: Format = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Remove what MASK covers from PHOTO, and complete the picture from its own patches, at its own resolution.

    With --model a network completes it.

    What the mask covers at all is hole, its soft edges too. Without a mask, every pixel that is not wholly opaque is,
    and the result is opaque. Every pixel outside the hole stays as it is (but for what a lossy format makes of it).

    A folder's pictures are written as NAME.png, each as soon as it is done.
    """
    with one_sentence_errors() as warned, stages(quiet=as_json) as stage:
        use_threads(threads)
        settings: dict[str, Any] = {
            "quality": quality,
            "patch_size": patch_size,
            "levels": levels,
            "iterations": iterations,
            "seed": seed,
        }
        if grow is not None:
            settings["grow"] = grow
        if mask is None and (invert_mask or mask_color is not None):
            option = "--invert-mask" if invert_mask else "--mask-color"
            raise ValueError(f"{option}: it says how the mask is read; expected --mask too.")
        network = Model(None if model is None else str(model), attention)
        if keep_out is not None and model is not None:
            raise ValueError("--keep-out: a network (--model) copies no patches that could be kept out.")
        masks = (mask, keep_out, mask_color, invert_mask)
        job = InpaintJob(photo, output, device, settings, stage, network, *masks, format=format)
        told = job.run(FolderOptions(resume, on_error, recursive))
    tell(told, output, network.name, settings, warned, as_json=as_json)
