"""The jobs of the worker, done by the tasks. A job is a dictionary of plain values, and so is its result.

Every job has a `folder` of its own, in which its images are written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from patchattn.demo.image_checks import check_image_file, check_pixel_count
from patchattn.demo.pixel_attention import attention_at_pixel, write_field
from patchattn.demo.process import JobRequest
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

JobResult = dict[str, Any]
ReportStage = Callable[[str], None]

MASK_OPTIONS = MaskOptions(argument="The mask", color_argument=None, invert_argument=None)
MAX_PREVIEW_SIDE = 1600
"""Longer side of the images that the page shows; the files that are downloaded have their full size."""


def open_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    """Read an uploaded image, and write a preview of it."""
    report_stage("reading")
    image = _read(job, "path", "The file")
    height, width = image.size
    preview = _write_preview(image, Path(job["folder"]) / "preview.png", _preview_size(image.size))
    return {"path": job["path"], "name": job["name"], "preview": preview, "size": [height, width]}


def sample_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    """Write a sample photograph, then open it as `open_job` does."""
    report_stage("reading")
    path = write_sample(job["sample"], Path(job["folder"]))
    return open_job(job | {"path": str(path), "name": path.name}, report_stage)


def inpaint_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    report_stage("reading")
    image = _read(job, "image", "The photograph")
    hole = _read_hole(job, image)
    if hole is not None:
        hole = add_jpeg_rim(hole.float(), Path(job["image"]))
    result = inpaint(image, hole, progress=report_stage, **job["settings"])
    return _write_result(job, "filled", result.image, image, report_stage, f"Filled in {result.seconds:.1f} s.")


def colorize_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    report_stage("reading")
    gray, reference = _read(job, "image", "The gray picture"), _read(job, "reference", "The colored picture")
    result = colorize(gray, reference, progress=report_stage, **job["settings"])
    return _write_result(job, "colored", result.image, gray, report_stage, f"Colored in {result.seconds:.1f} s.")


def upscale_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    report_stage("reading")
    image, scale = _read(job, "image", "The photograph"), job["settings"]["scale"]
    height, width = image.size
    check_pixel_count((scale * height, scale * width), job["megapixels"], f"{scale} times larger")
    result = upscale(image, progress=report_stage, **job["settings"])
    message = f"From {width} x {height} pixels to {scale * width} x {scale * height} in {result.seconds:.1f} s."
    return _write_result(job, f"{scale}x", result.image, image, report_stage, message)


def reconstruct_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    report_stage("reading")
    target, reference = _read(job, "image", "The target"), _read(job, "reference", "The reference")
    result = reconstruct(target, reference, progress=report_stage, **job["settings"])
    message = f"{result.psnr:.2f} dB from the target, in {result.seconds:.1f} s."
    return _write_result(job, "rebuilt", result.image, target, report_stage, message)


def field_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    report_stage("reading")
    images = _read(job, "query", "The query"), _read(job, "key", "The key")
    return write_field(images, Path(job["folder"]), job["settings"], report_stage)


def pixel_job(job: JobRequest, report_stage: ReportStage) -> JobResult:
    return attention_at_pixel(Path(job["field"]), job["row"], job["column"])


JOBS: dict[str, Callable[[JobRequest, ReportStage], JobResult]] = {
    "open": open_job,
    "sample": sample_job,
    "inpaint": inpaint_job,
    "colorize": colorize_job,
    "upscale": upscale_job,
    "reconstruct": reconstruct_job,
    "field": field_job,
    "pixel": pixel_job,
}


def _read(job: JobRequest, name: str, argument: str) -> Image:
    path = Path(job[name])
    check_image_file(path, job["megapixels"], argument)
    return read_image(path, argument=argument)


def _read_hole(job: JobRequest, image: Image) -> Tensor | None:
    """The mask, painted on the preview or loaded in the full size; None: the transparent pixels."""
    if not job["mask"]:
        if image.alpha is not None:
            return None
        raise ValueError("Nothing is painted yet: paint over what is to go, or load a mask, then fill.")
    if not job["painted"]:
        check_image_file(Path(job["mask"]), job["megapixels"], "The mask")
        return read_mask(job["mask"], image, MASK_OPTIONS)
    hole = _covered(_read(job, "mask", "The mask").color.mean(1, keepdim=True), image.size)
    if not hole.any():
        raise ValueError("Nothing is painted yet: paint over what is to go, then fill.")
    return hole


def _covered(painted: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixels of an image of this size that the painted strokes cover wholly or in part.

    They were painted on the preview, which may be smaller: each pixel takes the largest value of all that it overlaps,
    so that no stroke is too thin.
    """
    return F.adaptive_max_pool2d(painted, size)[0, 0] > 0


def _write_result(
    job: JobRequest, suffix: str, image: Image, before: Image, report_stage: ReportStage, message: str
) -> JobResult:
    """Write the result, and previews of the image before and after, both of one size."""
    report_stage("writing")
    folder = Path(job["folder"])
    path = folder / f"{Path(job['name']).stem}-{suffix}.{job['format']}"
    write_image(path, image, argument="The result")
    size = _preview_size(image.size)
    return {
        "path": str(path),
        "before": _write_preview(before, folder / "before.png", size),
        "after": _write_preview(image, folder / "after.png", size),
        "message": message,
    }


def _preview_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size of the preview of an image, with the same aspect ratio and at most `MAX_PREVIEW_SIDE`."""
    ratio = min(1.0, MAX_PREVIEW_SIDE / max(size))
    return max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio))


def _write_preview(image: Image, path: Path, size: tuple[int, int]) -> str:
    """Write an image for the screen: of this size, of 8 bits, and without metadata, which may hold the place."""
    color, alpha = image.color, image.alpha
    if size != image.size:
        color, alpha = resize_with_alpha(color, alpha, size)
    preview = replace(image, color=color, alpha=alpha, bit_depth=8, metadata=NO_METADATA)
    write_image(path, preview)
    return str(path)
