"""Inpainting without weights beside other programs: quality, time, and the images.

    python benchmarks/inpainting.py --data DIR [--only METHOD ...] [--results FOLDER]

DIR holds places2/images/NN.jpg and places2/masks/NN.png, where white is the hole. The peers are in the extra `bench`;
PyPatchMatch runs with every patch size, and its best is the one to beat. Times are of the second call of two, with all
threads that each program takes; all run in turn on each image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from inpainting_plot import draw
from machine import table
from numpy.typing import NDArray
from page import check_plots, image_link, machine_line, write_page
from torch import Tensor

from patchattn.tasks.image_quality import peak_signal_noise_ratio, structural_similarity
from patchattn.tasks.images import read_image
from patchattn.tasks.inpaint import QUALITIES, inpaint

Bytes = NDArray[np.uint8]
Method = Callable[[Bytes, NDArray[np.bool_]], Bytes]
"""From RGB (height, width, 3) and the hole to RGB."""

PATCH_SIZES = (3, 5, 7, 9, 11, 15)
SHOWN = ("OpenCV, Telea", "PyPatchMatch", "patchattn, good")


def ours(image: Bytes, hole: NDArray[np.bool_], *, quality: str) -> Bytes:
    return to_bytes(inpaint(to_tensor(image), torch.from_numpy(hole), quality=quality).image.color)


def py_patch_match(image: Bytes, hole: NDArray[np.bool_], *, patch_size: int) -> Bytes:
    from patchmatch import patch_match

    filled: Bytes = patch_match.inpaint(image, (255 * hole.astype(np.uint8))[..., None], patch_size=patch_size)
    return filled


def patchmatch_cython(image: Bytes, hole: NDArray[np.bool_]) -> Bytes:
    from patchmatch_cython import inpaint_pyramid

    filled: Bytes = inpaint_pyramid(image, 255 * hole.astype(np.uint8))
    return filled


def telea(image: Bytes, hole: NDArray[np.bool_]) -> Bytes:
    import cv2

    return np.asarray(cv2.inpaint(image, 255 * hole.astype(np.uint8), 5, cv2.INPAINT_TELEA), np.uint8)


METHODS: dict[str, Method] = {
    **{f"patchattn, {quality}": partial(ours, quality=quality) for quality in QUALITIES},
    **{f"PyPatchMatch, patches of {size}": partial(py_patch_match, patch_size=size) for size in PATCH_SIZES},
    "patchmatch-cython": patchmatch_cython,
    "OpenCV, Telea": telea,
}


def to_tensor(image: Bytes) -> Tensor:
    return torch.from_numpy(image).movedim(2, 0)[None] / 255


def to_bytes(image: Tensor) -> Bytes:
    rounded: Bytes = (image[0].movedim(0, 2) * 255).round().byte().numpy()
    return rounded


def total_variation(image: Tensor, where: Tensor) -> float:
    """The sum of absolute differences between neighbors of which at least one is there."""
    down, across = where[1:] | where[:-1], where[:, 1:] | where[:, :-1]
    return float(image.diff(dim=2).abs()[0][:, down].sum() + image.diff(dim=3).abs()[0][:, across].sum())


def quality_of(filled: Tensor, truth: Tensor, hole: Tensor) -> dict[str, float]:
    everywhere = torch.ones_like(hole)
    return {
        "psnr": peak_signal_noise_ratio(filled, truth, data_range=1.0),
        "ssim": structural_similarity(filled, truth, data_range=1.0),
        "tv": total_variation(filled, everywhere) / total_variation(truth, everywhere),
        "tv_hole": total_variation(filled, hole) / total_variation(truth, hole),
    }


def measure(pairs: list[tuple[Path, Path]], chosen: dict[str, Method]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One entry for each method and image, and what each made of each image."""
    results: list[dict[str, Any]] = []
    made: dict[str, Any] = {}
    for image_path, mask_path in pairs:
        image = to_bytes(read_image(image_path).color)
        hole = (read_image(mask_path).color.mean(1)[0] > 0.5).numpy()
        made[image_path.stem] = {"truth": image, "hole": hole}
        for name, method in chosen.items():
            method(image, hole)
            start = time.perf_counter()
            filled = method(image, hole)
            seconds = time.perf_counter() - start
            # What a program changes outside the hole is not its completion.
            filled = np.where(hole[..., None], filled, image)
            made[image_path.stem][name] = filled
            found = quality_of(to_tensor(filled), to_tensor(image), torch.from_numpy(hole))
            results.append({"method": name, "image": image_path.stem, "seconds": seconds, **found})
        told = ", ".join(f"{entry['method']} {entry['psnr']:.2f}" for entry in results[-len(chosen) :])
        print(f"{image_path.stem}: {told}", flush=True)
    return results, made


def page(results: list[dict[str, Any]], names: list[str]) -> list[str]:
    rows = []
    for name in names:
        own = [entry for entry in results if entry["method"] == name]
        rows.append(
            [
                name,
                *(f"{mean(entry[key] for entry in own):.{digits}f}" for key, digits in
                  (("psnr", 2), ("ssim", 4), ("tv", 3), ("tv_hole", 2))),
                f"{median(entry['seconds'] for entry in own):.2f} "
                f"({min(entry['seconds'] for entry in own):.2f} to {max(entry['seconds'] for entry in own):.2f})",
            ]
        )  # fmt: skip
    headings = ["", "PSNR in dB", "SSIM", "TV / truth's", "about the hole", "seconds: median (range)"]
    count = len({entry["image"] for entry in results})
    return [
        "# Inpainting without weights",
        f"{count} photographs with holes of the shape of things; means over whole images. TV is the total variation, "
        "of the whole image and about the hole alone. Written by "
        "`python benchmarks/inpainting.py --data DIR --results docs/results`.",
        table(headings, rows),
        machine_line(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these methods (default: all)")
    parser.add_argument("--results", type=Path, help="where inpainting.md, .json and .jpg go")
    arguments = parser.parse_args()
    folder = arguments.data / "places2"
    pairs = [(path, folder / "masks" / f"{path.stem}.png") for path in sorted(folder.glob("images/*.jpg"))]
    if not pairs:
        sys.exit(f"--data: {arguments.data} lacks places2/images/*.jpg; put them there or give another folder")
    unknown = set(arguments.only or []) - METHODS.keys()
    if unknown:
        parser.error(f"--only: got {'; '.join(sorted(unknown))}; there are {'; '.join(METHODS)}")
    check_plots(arguments.results)
    chosen = {name: method for name, method in METHODS.items() if arguments.only is None or name in arguments.only}
    results, made = measure(pairs, chosen)
    parts = page(results, list(chosen))
    print("\n\n".join(parts))
    if arguments.results is not None:
        best = max(
            (name for name in chosen if name.startswith("PyPatchMatch")),
            key=lambda name: mean(entry["psnr"] for entry in results if entry["method"] == name),
            default=None,
        )
        shown = [name for name in (SHOWN[0], best, SHOWN[2]) if name in chosen]
        arguments.results.mkdir(parents=True, exist_ok=True)
        path = arguments.results / "inpainting.jpg"
        draw(made, shown, path)
        write_page(arguments.results, "inpainting", [*parts, image_link(path, "holes, completions and truth")], results)


if __name__ == "__main__":
    main()
