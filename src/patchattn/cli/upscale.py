"""The command `upscale`: one picture, or a folder of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from patchattn.cli.failures import one_sentence_errors
from patchattn.cli.folders import FolderOptions, OnError, Recursive, Resume
from patchattn.cli.jobs import Model
from patchattn.cli.options import Json, PatchSize, Seed, Temperature, Threads, use_threads
from patchattn.cli.printing import tell
from patchattn.cli.stages import stages
from patchattn.cli.upscale_jobs import UpscaleJob
from patchattn.cli.writing import Format

__all__ = ["upscale"]


def upscale(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="The picture to enlarge, or a folder of pictures.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Where to write: a picture (.png, .tif, .webp, .jpg, .bmp), or a folder, made if it is not there.",
        ),
    ],
    scale: Annotated[int, typer.Option(help="How many times larger: 2, 3 or 4.")] = 2,
    patch_size: PatchSize = 5,
    k: Annotated[int, typer.Option(min=1, help="Matches of each patch; more are smoother.")] = 4,
    temperature: Temperature = 0.05,
    seed: Seed = 0,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Enlarge by a trained network instead: of `patchattn train superresolution`, a published checkpoint "
            "of CSNLN, or default, the compact one that comes along. The options of patches do not count then.",
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="What the network's cross-scale branch attends with: psal, or full, for small pictures.",
            show_default="psal",
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
    """Enlarge PHOTO 2, 3 or 4 times, with detail that its own patches have at other sizes. No weights are needed.

    With --model a network enlarges it.

    Bit depth, transparency and color profile stay as they are; made smaller again, the result is the photograph. A
    folder's pictures are written as NAME.png, each as soon as it is done.
    """
    with one_sentence_errors() as warned, stages(quiet=as_json) as stage:
        use_threads(threads)
        settings: dict[str, Any] = {
            "scale": scale,
            "patch_size": patch_size,
            "k": k,
            "temperature": temperature,
            "seed": seed,
        }
        job = UpscaleJob(photo, output, device, settings, stage, Model(model, attention), format=format)
        told = job.run(FolderOptions(resume, on_error, recursive))
    tell(told, output, model, settings, warned, as_json=as_json)
