"""What `patchattn colorize` does with a picture, a folder and a film, and what it tells of each."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchattn.cli.folders import prepare_folders, tell_folder
from patchattn.cli.printing import Told, megabytes
from patchattn.cli.reading import read
from patchattn.cli.stages import Stages

if TYPE_CHECKING:
    from torch import nn

    from patchattn.tasks.frames import FrameColorizer
    from patchattn.tasks.images import Picture

__all__ = ["ColorizeJob", "colour_film", "colour_folder", "colour_picture"]


@dataclass(frozen=True)
class ColorizeJob:
    """The arguments of the command."""

    gray: Path
    reference: Path
    output: Path
    settings: dict[str, Any]
    """Those of `tasks.colorize.colorize`."""
    model: str | None
    stage: Stages

    def read_reference(self) -> Picture:
        """Read the reference, and refuse one without colours before any work."""
        self.stage("reading")
        picture = read(self.reference, "REFERENCE")
        if picture.colour.shape[1] == 1:
            raise ValueError(f"REFERENCE: {self.reference} has one channel, gray; expected colours to take.")
        return picture

    def network(self) -> nn.Module | None:
        """Load the network that was asked for, if one was."""
        if self.model is None:
            return None
        from patchattn.networks.weights import load_network

        network: nn.Module = load_network(None if self.model == "default" else self.model)
        return network

    def fingerprint(self, source: str, reference: Picture) -> str:
        """Return a text that tells this work from any with another result, whatever is coloured."""
        model = self.model
        if model not in (None, "default"):
            model = blake2b(Path(str(model)).read_bytes(), digest_size=16).hexdigest()
        colours = blake2b(reference.colour.contiguous().numpy().tobytes(), digest_size=16).hexdigest()
        return json.dumps([source, self.settings, model, list(reference.colour.shape), colours], sort_keys=True)

    def frames(self, source: str, reference: Picture) -> FrameColorizer:
        """What colours one picture after another."""
        from patchattn.tasks.frames import FrameColorizer

        return FrameColorizer(reference, source=source, network=self.network(), **self.settings)


def colour_picture(job: ColorizeJob, show_field: Path | None) -> Told:
    """Colour one picture."""
    from patchattn.tasks import colorize, flow_picture, images

    if show_field is not None:
        images.check_picture_output(show_field, argument="--show-field")
    images.check_picture_output(job.output, argument="--output")
    reference = job.read_reference()
    gray = read(job.gray, "GRAY")
    # Before the work, not after it.
    images.check_picture_output(job.output, bit_depth=gray.bit_depth, alpha=gray.alpha is not None, argument="--output")
    network = job.network()
    result = colorize.colorize(gray, reference, network=network, progress=job.stage, **job.settings)
    job.stage("writing")
    images.write_picture(job.output, result.picture, argument="--output")
    if show_field is not None and result.field is not None:
        drawn = flow_picture.flow_picture(result.field.offsets()[0, 0, 0])
        images.write_picture(show_field, drawn, argument="--show-field")
    height, width = result.picture.size
    return Told(
        {
            "show_field": None if show_field is None else str(show_field),
            "height": height,
            "width": width,
            "bit_depth": result.picture.bit_depth,
            "seconds": result.seconds,
            "peak_memory_bytes": result.peak_memory,
        },
        {
            "wrote": f"{job.output} ({width} x {height}, {result.picture.bit_depth} bit)",
            "field": show_field,
            "time": f"{result.seconds:.2f} s",
            "memory": megabytes(result.peak_memory),
        },
    )


def colour_folder(job: ColorizeJob, source: str, resume: bool, on_error: str) -> Told:
    """Colour the pictures of a folder."""
    from patchattn.tasks.frames import colorize_folder
    from patchattn.tasks.peak_memory import peak_memory

    pictures = prepare_folders(job.gray, job.output, on_error, argument="GRAY")
    frames = job.frames(source, job.read_reference())
    job.output.mkdir(exist_ok=True)
    began = time.perf_counter()
    report = colorize_folder(
        pictures,
        job.output,
        frames,
        resume=resume,
        on_error=on_error,
        progress=job.stage,
        argument="GRAY",
        output_argument="--output",
    )
    return tell_folder("coloured", report, job.output, time.perf_counter() - began, peak_memory(), resume)


def colour_film(job: ColorizeJob, source: str, resume: bool) -> Told:
    """Colour a video."""
    from patchattn.tasks.peak_memory import peak_memory
    from patchattn.tasks.video import check_film_output, map_film

    check_film_output(job.output, argument="--output")
    reference = job.read_reference()
    frames = job.frames(source, reference)
    began = time.perf_counter()

    def progress(done: int, total: int) -> None:
        job.stage(f"frame {done + 1} of {total}" if total else f"frame {done + 1}")

    film = map_film(
        job.gray,
        job.output,
        lambda picture: frames(picture).picture,
        state=frames,
        resume=resume,
        settings=job.fingerprint(source, reference),
        progress=progress,
        source_argument="GRAY",
        output_argument="--output",
        resume_argument="--resume",
    )
    seconds, memory = time.perf_counter() - began, peak_memory()
    height, width = film.size
    return Told(
        {
            "frames": film.frames,
            "height": height,
            "width": width,
            "rate": float(film.rate),
            "sounds": film.sounds,
            "missing": list(film.missing),
            "finished_before": film.finished_before,
            "seconds": seconds,
            "peak_memory_bytes": memory,
        },
        {
            "wrote": f"{job.output} ({film.frames} frames of {width} x {height}, {float(film.rate):.3g} a second)",
            "finished before": film.finished_before if resume else None,
            "missing": "\n".join(film.missing) or None,
            "sound": f"{film.sounds} copied",
            "time": f"{seconds:.2f} s",
            "memory": megabytes(memory),
        },
        incomplete=bool(film.missing),
    )
