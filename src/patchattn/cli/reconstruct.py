"""The command `reconstruct`: an image, or each image in a folder, rebuilt from another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from patchattn.cli.commands import tool
from patchattn.cli.image_tool import Given, ImageTool, Result, image_on_device
from patchattn.cli.options import ImageToolOptions, Output, ShowField
from patchattn.cli.printing import Report
from patchattn.cli.reading import read
from patchattn.cli.stages import Stages
from patchattn.cli.writing import Target
from patchattn.options import Option, values_of
from patchattn.tasks.settings import ReconstructSettings

if TYPE_CHECKING:
    from patchattn.tasks.images import Image
    from patchattn.tasks.reconstruct import Reconstruction

__all__ = ["reconstruct"]


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(ReconstructSettings, ImageToolOptions):
    """Options of the command."""

    target: Annotated[
        Path,
        Option(
            "The image to rebuild: 8 or 16 bits, gray, RGB or RGBA; or a folder.", metavar="TARGET", positional=True
        ),
    ]
    reference: Annotated[Path, Option("The image to take pixels from; any size.", metavar="REFERENCE", positional=True)]
    output: Output
    show_field: ShowField = None


@tool(ReconstructOptions)
def reconstruct(options: ReconstructOptions, stage: Stages) -> Report:
    """Rebuild TARGET from the pixels of REFERENCE, and report how good the result is.

    Prints the mean squared error (colors in [0, 1]), the PSNR in dB, the seconds that it took, and the peak memory of
    the whole process.
    """
    settings = values_of(options, ReconstructSettings)
    work = ReconstructTool(
        options.target, options.output, options, settings, stage, options.reference, options.show_field
    )
    if options.show_field is not None and options.target.is_dir():
        raise ValueError("--show-field: it is for one image; every image of a folder has its own.")
    return work.run()


@dataclass(frozen=True)
class ReconstructTool(ImageTool[Given]):
    """The command, on an image or a folder."""

    reference: Path
    show_field: Path | None

    command: ClassVar[str] = "reconstruct"
    argument: ClassVar[str] = "TARGET"

    def complete(self, path: Path, image: Image) -> Given:
        return Given(image)

    def also_read(self) -> Mapping[str, Path | None]:
        return {"REFERENCE": self.reference}

    def also_written(self) -> Mapping[str, Path | None]:
        return {"--show-field": self.show_field}

    def begin(self) -> Callable[[Given], Reconstruction]:
        from patchattn.tasks import reconstruct

        reference = image_on_device(read(self.reference, "REFERENCE"), self.options.device)
        return lambda given: reconstruct.reconstruct(given.image, reference, progress=self.stage, **self.settings)

    def write_more(self, result: Result) -> dict[str, Any]:
        made = _reconstruction(result)
        if self.show_field is not None:
            from patchattn.tasks.flow_image import flow_image

            field = made.field.cpu()
            drawn = flow_image(field.offsets()[0, 0, 0], matched=field.index[0, 0, 0] >= 0)
            Target(self.show_field, argument="--show-field").write(drawn)
        return {
            "show_field": None if self.show_field is None else str(self.show_field),
            "mse": made.mse,
            "psnr": made.psnr,
        }

    def summary(self, result: Result) -> dict[str, object]:
        made = _reconstruction(result)
        return {"field": self.show_field, "MSE": f"{made.mse:.6f}", "PSNR": f"{made.psnr:.2f} dB"}


def _reconstruction(result: Result) -> Reconstruction:
    from patchattn.tasks.reconstruct import Reconstruction

    assert isinstance(result, Reconstruction)
    return result
