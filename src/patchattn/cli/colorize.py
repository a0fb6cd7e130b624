"""The command `colorize`: an image, a folder of them, or a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patchattn.cli.colorize_jobs import ColorizeJob, color_video
from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.folders import FolderOptions, OnError, Recursive
from patchattn.cli.jobs import Model
from patchattn.cli.options import Iterations, Json, Method, Seed, Temperature, Threads, use_threads
from patchattn.cli.printing import tell
from patchattn.cli.stages import stages
from patchattn.cli.writing import Format

__all__ = ["colorize"]


def colorize(
    gray: Annotated[
        Path,
        typer.Argument(metavar="GRAY", help="What to color: a picture, a folder of pictures, or a video (.mp4, ...)."),
    ],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="The picture to take colors from; any size.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where to write: a picture (.png, .tif, .webp, .jpg, .bmp); a folder, made if it is not there; or a "
            "video (.mp4, .mkv, .mov).",
        ),
    ],
    show_field: Annotated[
        Path | None,
        typer.Option(help="Where to write a picture of the offsets: hue is the direction, saturation the length."),
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Matches of each pixel.")] = 3,
    patch_size: Annotated[
        int, typer.Option(min=1, help="Side of the patches that are compared, in pixels of the reduced pictures; odd.")
    ] = 11,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="By how much pictures are reduced to be compared; colors keep the full size.",
            show_default="2; with --model, to the size of the frames that it learned from",
        ),
    ] = None,
    aggregate: Annotated[
        bool, typer.Option(help="Let the matches of the neighboring pixels vote too: far fewer stray colors.")
    ] = True,
    temperature: Temperature = 1.0,
    method: Method = "auto",
    iterations: Iterations = None,
    seed: Seed = 0,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|default",
            help="Color by a trained network instead: a file of weights, or the network that ships with the package. "
            "The options of matching do not count then.",
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Folder and video: color every picture from the REFERENCE, or from the previous result "
            "(reference or previous). Errors of previous results add up.",
        ),
    ] = "reference",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Folder: leave images alone that are finished with the same settings, and go on after them. Video: go "
            "on with the frames that an interrupted run finished; keep them if this one is interrupted.",
        ),
    ] = False,
    on_error: OnError = "stop",
    recursive: Recursive = False,
    format: Format = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Color GRAY as what looks like it in REFERENCE is colored; brightness stays exactly as it is.

    A folder's pictures are taken in the order of their names, and written as NAME.png, each as soon as it is done; an
    interrupted run can go on with --resume. A video keeps its times, sound, subtitles and title, and is turned upright;
    high dynamic range becomes standard. What cannot be read of a damaged one is named, and the exit code is 1. It is
    written whole or not at all; after the process was killed, --resume goes on a few seconds before that.
    """
    with one_sentence_errors() as warned, stages(quiet=as_json) as stage:
        from patchattn.tasks.frame_colorizer import SOURCES
        from patchattn.tasks.video import VIDEO_SUFFIXES

        use_threads(threads)
        if source not in SOURCES:
            raise ValueError(f"--from: got {source}; allowed are reference and previous.")
        settings: dict[str, Any] = {
            "k": k,
            "patch_size": patch_size,
            "scale": scale,
            "aggregate": aggregate,
            "temperature": temperature,
            "method": method,
            "iterations": iterations,
            "seed": seed,
        }
        options = FolderOptions(resume, on_error, recursive)
        job = ColorizeJob(
            gray, output, "cpu", settings, stage, Model(model), reference, source, show_field, format=format
        )
        folder, video = gray.is_dir(), gray.suffix.lower() in VIDEO_SUFFIXES
        if show_field is not None and (folder or video):
            raise ValueError("--show-field: it is for one image; every image of a folder or video has its own.")
        if show_field is not None and model is not None:
            raise ValueError("--show-field: a network (--model) finds no matches to show.")
        if video:
            job.check_apart()
            FolderOptions(False, on_error, recursive).refuse_for_one(gray)
        told = color_video(job, resume) if video else job.run(options)
    tell(told, output, model, settings, warned, as_json=as_json)
