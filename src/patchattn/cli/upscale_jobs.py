"""What `patchattn upscale` does with a picture and with a folder, and what it tells of each."""

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
    from patchattn.networks.cross_scale import SuperResolutionNetwork
    from patchattn.tasks.images import Picture

__all__ = ["Job", "Model", "upscale_folder", "upscale_picture"]

LONGEST_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}
"""Pixels that formats end at."""


@dataclass(frozen=True)
class Model:
    """The network that was asked for, if one was."""

    name: str | None
    """A file, or `default`."""
    attention: str | None
    """Of its cross-scale branch; None: PSAL, whatever it was trained with, for pictures of any size."""

    def load(self, scale: int, device: str) -> SuperResolutionNetwork | None:
        if self.name is None:
            return None
        from patchattn.networks.weights import load_superresolution_network

        path = None if self.name == "default" else self.name
        network = load_superresolution_network(path, scale=scale, cross_scale=self.attention or "psal")
        return on_device(network, device)


@dataclass(frozen=True)
class Job:
    """The arguments of the command."""

    photo: Path
    output: Path
    device: str
    settings: dict[str, Any]
    """Those of `tasks.upscale.upscale`."""
    stage: Stages
    model: Model

    def load(self) -> SuperResolutionNetwork | None:
        return self.model.load(self.settings["scale"], self.device)

    def read(self, path: Path) -> Picture:
        return read(path, "PHOTO")


def upscale_picture(job: Job) -> Told:
    """Enlarge one picture."""
    from patchattn.tasks import images

    images.check_picture_output(job.output, argument="--output")
    job.stage("reading")
    picture = job.read(job.photo)
    # Before the work, not after it.
    depth, alpha = picture.bit_depth, picture.alpha is not None
    images.check_picture_output(job.output, bit_depth=depth, alpha=alpha, argument="--output")
    _check_size(job, picture)
    network = job.load()
    began = time.perf_counter()
    enlarged, memory = _enlarge(job, picture, network)
    seconds = time.perf_counter() - began
    job.stage("writing")
    images.write_picture(job.output, enlarged, argument="--output")
    return tell_picture(job.output, enlarged, seconds, memory)


def upscale_folder(job: Job, resume: bool, on_error: str) -> Told:
    """Enlarge a folder's pictures."""
    from patchattn.tasks.folders import map_folder
    from patchattn.tasks.peak_memory import peak_memory
    from patchattn.tasks.upscale import check_settings

    check_settings(**job.settings)
    pictures = prepare_folders(job.photo, job.output, on_error, argument="PHOTO")
    network = job.load()
    job.output.mkdir(exist_ok=True)
    began = time.perf_counter()
    report = map_folder(
        pictures,
        job.output,
        job.read,
        lambda picture: _enlarge(job, picture, network)[0],
        resume=resume,
        on_error=on_error,
        progress=job.stage,
        output_argument="--output",
    )
    return tell_folder("upscaled", report, job.output, time.perf_counter() - began, peak_memory(), resume)


def _enlarge(job: Job, picture: Picture, network: SuperResolutionNetwork | None) -> tuple[Picture, int | None]:
    from patchattn.tasks.upscale import upscale

    result = upscale(_moved(picture, job.device), network=network, progress=job.stage, **job.settings)
    return _moved(result.picture, "cpu"), result.peak_memory


def _moved(picture: Picture, device: str) -> Picture:
    alpha = None if picture.alpha is None else on_device(picture.alpha, device)
    return replace(picture, colour=on_device(picture.colour, device), alpha=alpha)


def _check_size(job: Job, picture: Picture) -> None:
    height, width = (job.settings["scale"] * extent for extent in picture.size)
    longest = LONGEST_SIDE.get(job.output.suffix.lower(), max(height, width))
    if max(height, width) > longest:
        raise ValueError(
            f"--output: {job.output} cannot hold {width} x {height} pixels; its format ends at {longest} a side."
        )
