"""The command `upscale`: an image, or each image in a folder, enlarged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from patchattn.cli.commands import tool
from patchattn.cli.image_tool import Model
from patchattn.cli.options import ImageToolOptions, Output
from patchattn.cli.printing import Report
from patchattn.cli.stages import Stages
from patchattn.cli.upscale_tool import UpscaleTool
from patchattn.options import Option, values_of
from patchattn.tasks.settings import UpscaleSettings

__all__ = ["upscale"]


@dataclass(frozen=True, kw_only=True)
class UpscaleOptions(UpscaleSettings, ImageToolOptions):
    """Options of the command."""

    photo: Annotated[Path, Option("The image to enlarge, or a folder of images.", metavar="PHOTO", positional=True)]
    output: Output
    model: Annotated[
        str | None,
        Option(
            "Enlarge by a trained network instead: of `patchattn train superresolution`, a published checkpoint of "
            "CSNLN, or default, the compact one that comes along. The options of patches do not count then.",
            metavar="PATH|default",
        ),
    ] = None
    attention: Annotated[
        Literal["psal", "full"] | None,
        Option("What the network's cross-scale branch attends with; full is for small images.", shown_default="psal"),
    ] = None


@tool(UpscaleOptions)
def upscale(options: UpscaleOptions, stage: Stages) -> Report:
    """Enlarge PHOTO 2, 3, 4, 8 or 16 times, with detail that its own patches have at other sizes.

    No weights are needed. With --model a network enlarges it, 2, 3 or 4 times.

    Bit depth, transparency and color profile stay as they are; made smaller again, the result is the photograph. A
    folder's images are written as NAME.png, each as soon as it is done.
    """
    settings = values_of(options, UpscaleSettings)
    model = Model(options.model, options.attention)
    return UpscaleTool(options.photo, options.output, options, settings, stage, model=model).run()
