"""What can be asked for, done by the tasks. A job is a dictionary of plain values, and so is its result.

Every job has a `folder` of its own, in which its pictures are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from patchattn.demo.limits import check_pixels, check_size
from patchattn.demo.look import look, marks
from patchattn.demo.samples import write_sample
from patchattn.tasks.alpha import resize_with_alpha
from patchattn.tasks.colorize import colorize
from patchattn.tasks.images import Image, read_image, write_image
from patchattn.tasks.inpaint import inpaint
from patchattn.tasks.masks import MaskOptions, add_jpeg_rim, read_mask
from patchattn.tasks.metadata import NO_METADATA
from patchattn.tasks.reconstruct import reconstruct
from patchattn.tasks.upscale import upscale

__all__ = ["JOBS"]

Job = dict[str, Any]
Tell = Callable[[str], None]

LOADED = MaskOptions(argument="The mask", color_argument=None, invert_argument=None)
SHOWN = 1600
"""The longer side of what is shown; what is downloaded has its full size."""


def open_job(job: Job, tell: Tell) -> Job:
    """Read an uploaded picture, and make what is shown of it."""
    tell("reading")
    picture = _read(job, "path", "The file")
    height, width = picture.size
    shown = _show(picture, Path(job["folder"]) / "shown.png", _fitting(picture.size, SHOWN))
    return {"path": job["path"], "name": job["name"], "shown": shown, "size": [height, width]}


def sample_job(job: Job, tell: Tell) -> Job:
    """The same for a photograph that comes along."""
    tell("reading")
    path = write_sample(job["sample"], Path(job["folder"]))
    return open_job(job | {"path": str(path), "name": path.name}, tell)


def inpaint_job(job: Job, tell: Tell) -> Job:
    tell("reading")
    picture = _read(job, "photo", "The photograph")
    hole = _hole(job, picture)
    if hole is not None:
        hole = add_jpeg_rim(hole.float(), Path(job["photo"]))
    result = inpaint(picture, hole, quality=job["quality"], progress=tell)
    return _written(job, "filled", result.image, picture, tell, f"Filled in {result.seconds:.1f} s.")


def colorize_job(job: Job, tell: Tell) -> Job:
    tell("reading")
    gray, reference = _read(job, "photo", "The gray picture"), _read(job, "reference", "The colored picture")
    result = colorize(gray, reference, k=job["k"], progress=tell)
    return _written(job, "colored", result.image, gray, tell, f"Colored in {result.seconds:.1f} s.")


def enlarge_job(job: Job, tell: Tell) -> Job:
    tell("reading")
    picture, scale = _read(job, "photo", "The photograph"), job["scale"]
    height, width = picture.size
    check_pixels((scale * height, scale * width), job["megapixels"], f"{scale} times larger")
    result = upscale(picture, scale, progress=tell)
    told = f"From {width} x {height} pixels to {scale * width} x {scale * height} in {result.seconds:.1f} s."
    return _written(job, f"{scale}x", result.image, picture, tell, told)


def rebuild_job(job: Job, tell: Tell) -> Job:
    tell("reading")
    target, reference = _read(job, "photo", "The target"), _read(job, "reference", "The reference")
    settings = {name: job[name] for name in ("k", "patch_size", "aggregate")}
    result = reconstruct(target, reference, **settings, progress=tell)
    told = f"{result.psnr:.2f} dB from the target, in {result.seconds:.1f} s."
    return _written(job, "rebuilt", result.image, target, tell, told)


def look_job(job: Job, tell: Tell) -> Job:
    tell("reading")
    pictures = _read(job, "photo", "The first picture"), _read(job, "reference", "The second picture")
    return look(pictures, Path(job["folder"]), job["settings"], tell)


def marks_job(job: Job, tell: Tell) -> Job:
    return marks(Path(job["field"]), job["row"], job["column"])


JOBS: dict[str, Callable[[Job, Tell], Job]] = {
    "open": open_job,
    "sample": sample_job,
    "inpaint": inpaint_job,
    "colorize": colorize_job,
    "enlarge": enlarge_job,
    "rebuild": rebuild_job,
    "look": look_job,
    "marks": marks_job,
}


def _read(job: Job, name: str, argument: str) -> Image:
    path = Path(job[name])
    check_size(path, job["megapixels"], argument)
    return read_image(path, argument=argument)


def _hole(job: Job, picture: Image) -> Tensor | None:
    """How much of each pixel is covered by a mask, painted on what is shown or loaded in the full size."""
    if not job["mask"]:
        if picture.alpha is not None:
            return None  # what is transparent
        raise ValueError("Nothing is painted yet: paint over what is to go, or load a mask, then fill.")
    if not job["painted"]:
        check_size(Path(job["mask"]), job["megapixels"], "The mask")
        return read_mask(job["mask"], picture, LOADED)
    hole = _covered(_read(job, "mask", "The mask").color.mean(1, keepdim=True), picture.size)
    if not hole.any():
        raise ValueError("Nothing is painted yet: paint over what is to go, then fill.")
    return hole


def _covered(gray: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of a picture of this size that what is painted covers wholly or in part.

    It was painted on what is shown, which may be smaller: each pixel takes the largest value of all that it overlaps,
    so that no stroke is too thin.
    """
    return F.adaptive_max_pool2d(gray, size)[0, 0] > 0


def _written(job: Job, what: str, picture: Image, before: Image, tell: Tell, told: str) -> Job:
    """Write the result, and what is shown of it beside what it came from, both of one size."""
    tell("writing")
    folder = Path(job["folder"])
    path = folder / f"{Path(job['name']).stem}-{what}.{job['format']}"
    write_image(path, picture, argument="The result")
    size = _fitting(picture.size, SHOWN)
    return {
        "path": str(path),
        "before": _show(before, folder / "before.png", size),
        "after": _show(picture, folder / "after.png", size),
        "told": told,
    }


def _fitting(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """A size of the same shape whose longer side is not longer than that."""
    ratio = min(1.0, longest / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def _show(picture: Image, path: Path, size: tuple[int, int]) -> str:
    """Write a picture for the screen: of this size, of 8 bits, and without what its file tells of the place."""
    color, alpha = picture.color, picture.alpha
    if size != picture.size:
        color, alpha = resize_with_alpha(color, alpha, size)
    shown = replace(picture, color=color, alpha=alpha, bit_depth=8, metadata=NO_METADATA)
    write_image(path, shown)
    return str(path)
