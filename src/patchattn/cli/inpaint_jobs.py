"""What `patchattn inpaint` does with a picture and with a folder, and what it tells of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchattn.cli.folders import prepare_folders, tell_folder
from patchattn.cli.options import on_device
from patchattn.cli.printing import Told, tell_picture
from patchattn.cli.reading import read
from patchattn.cli.stages import Stages

if TYPE_CHECKING:
    from torch import Tensor

    from patchattn.tasks.images import Picture
    from patchattn.tasks.inpaint import InpaintingModel

__all__ = ["Job", "Model", "fill_folder", "fill_picture"]


@dataclass(frozen=True)
class Model:
    """The network that was asked for, if one was."""

    path: Path | None
    attention: str | None
    """None: what it was trained with."""

    def load(self, device: str) -> InpaintingModel | None:
        if self.path is None:
            return None
        from patchattn.networks.weights import load_inpainting_network

        network = load_inpainting_network(self.path, attention=self.attention)
        return on_device(network, device)


@dataclass(frozen=True)
class Job:
    """The arguments of the command."""

    photo: Path
    mask: Path | None
    keep_out: Path | None
    output: Path
    device: str
    settings: dict[str, Any]
    """Those of `tasks.inpaint.inpaint`."""
    stage: Stages
    model: Model

    def read(self, path: Path) -> Given:
        """Read a picture and its masks."""
        picture = read(path, "PHOTO")
        masks = {"--mask": self.mask, "--keep-out": self.keep_out}
        hole, keep_out = (_read_mask(path, mask, picture, argument) for argument, mask in masks.items())
        if hole is None and picture.alpha is None:
            raise ValueError(f"--mask: none is given, and {path} has no transparent pixels to fill; expected a mask.")
        return Given(picture, hole, keep_out)


@dataclass(frozen=True)
class Given:
    """What belongs to one picture."""

    picture: Picture
    hole: Tensor | None
    keep_out: Tensor | None


def fill_picture(job: Job) -> Told:
    """Fill the hole of one picture."""
    from patchattn.tasks import images

    images.check_picture_output(job.output, argument="--output")
    job.stage("reading")
    given = job.read(job.photo)
    # Before the work, not after it.
    picture = given.picture
    depth, alpha = picture.bit_depth, picture.alpha is not None
    images.check_picture_output(job.output, bit_depth=depth, alpha=alpha, argument="--output")
    network = job.model.load(job.device)
    began = time.perf_counter()
    filled, memory = _fill(job, given, network)
    seconds = time.perf_counter() - began
    job.stage("writing")
    images.write_picture(job.output, filled, argument="--output")
    return tell_picture(job.output, filled, seconds, memory)


def fill_folder(job: Job, resume: bool, on_error: str) -> Told:
    """Fill the holes of a folder's pictures."""
    from patchattn.tasks.folders import map_folder
    from patchattn.tasks.peak_memory import peak_memory

    pictures = prepare_folders(job.photo, job.output, on_error, argument="PHOTO")
    network = job.model.load(job.device)
    job.output.mkdir(exist_ok=True)
    began = time.perf_counter()
    report = map_folder(
        pictures,
        job.output,
        job.read,
        lambda given: _fill(job, given, network)[0],
        resume=resume,
        on_error=on_error,
        progress=job.stage,
        output_argument="--output",
    )
    return tell_folder("filled", report, job.output, time.perf_counter() - began, peak_memory(), resume)


def _fill(job: Job, given: Given, network: InpaintingModel | None) -> tuple[Picture, int | None]:
    from patchattn.tasks.inpaint import inpaint

    picture = given.picture
    moved = replace(
        picture,
        colour=on_device(picture.colour, job.device),
        alpha=None if picture.alpha is None else on_device(picture.alpha, job.device),
    )
    result = inpaint(moved, given.hole, keep_out=given.keep_out, network=network, progress=job.stage, **job.settings)
    filled = result.picture
    alpha = None if filled.alpha is None else filled.alpha.cpu()
    return replace(filled, colour=filled.colour.cpu(), alpha=alpha), result.peak_memory


def _read_mask(photo: Path, mask: Path | None, picture: Picture, argument: str) -> Tensor | None:
    """Where the mask is white; of a folder of masks, the one that is named as the photograph."""
    if mask is None:
        return None
    if mask.is_dir():
        named = sorted(path for path in mask.iterdir() if path.stem == photo.stem)
        if len(named) != 1:
            raise ValueError(f"{argument}: {mask} has {len(named)} files named {photo.stem}.*, expected one.")
        (mask,) = named
    found = read(mask, argument)
    if found.size != picture.size:
        sizes = [f"{size[1]} x {size[0]}" for size in (found.size, picture.size)]
        raise ValueError(f"{argument}: {mask} has {sizes[0]} pixels, {photo} has {sizes[1]}; expected the same size.")
    return found.colour.mean(1)[0] > 0.5
