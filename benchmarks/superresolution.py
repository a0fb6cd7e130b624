"""Super-resolution: PSNR and SSIM on Y, seconds and memory, and the images (Table 7 of PSAL for the network).

    python benchmarks/superresolution.py --data DIR [--sets SET ...] [--scales N ...] [--only METHOD ...] [--model FILE]
        [--pairs N] [--results FOLDER]

DIR holds set5, set14 and urban100: folders of PNG. As in the literature, images are cut to a multiple of the scale,
made small by MATLAB's bicubic interpolation (antialiased, a = -0.5) and rounded to 8 bits; results are rounded to 8
bits, and compared on Y of YCbCr without a border as wide as the scale. Seconds are the processor's, of one call each,
after one on a small image: those of all threads together, which a machine at rest gives; beside other work they
were up to 1.6 times as many. Memory is what the call took beyond what was there. With --results the figures that
superresolution.json holds already are kept and those that lack are added, image by image: a run can be
interrupted. With --only, the page and its images are not written.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any

import torch
from page import check_plots
from process import peak_beyond
from superresolution_page import PIECES, SETS, write
from superresolution_plot import draw
from torch import Tensor
from torch.nn import functional

from patchattn.networks.superresolution import SuperResolutionNetwork
from patchattn.networks.weights import load_superresolution_network
from patchattn.tasks.image_quality import peak_signal_noise_ratio, structural_similarity
from patchattn.tasks.images import Image, read_image
from patchattn.tasks.upscale import upscale

Method = Callable[[Tensor, int], Tensor]
"""From RGB (1, 3, height, width) in [0, 1] and the scale to RGB."""
PIECE, BORDER = 3600, 10
"""Of the published program: pixels of a piece, and around it."""
WARM_UP = 24
"""Side of the image that is enlarged before times are taken."""


def bicubic(small: Tensor, scale: int) -> Tensor:
    return functional.interpolate(small, scale_factor=scale, mode="bicubic", antialias=True)


def without_weights(small: Tensor, scale: int) -> Tensor:
    return upscale(Image(small), scale).image.color


@cache
def network(scale: int, cross_scale: str, in_scale: str, model: Path | None) -> SuperResolutionNetwork:
    path = None if model is None else str(model).format(scale=scale)
    return load_superresolution_network(path, scale=scale, cross_scale=cross_scale, in_scale=in_scale)


def by_network(small: Tensor, scale: int, *, cross_scale: str, in_scale: str, model: Path | None) -> Tensor:
    return network(scale, cross_scale, in_scale, model).enlarge(small)


def in_pieces(small: Tensor, scale: int, *, method: Method) -> Tensor:
    """Enlarge squares of fewer than 3,600 pixels, each by itself with 10 pixels around: as the published program does,
    whose full attention takes no more at once."""
    height, width = small.shape[2:]
    parts = 1
    while (ceil(height / parts) + 2 * BORDER) * (ceil(width / parts) + 2 * BORDER) >= PIECE:
        parts *= 2
    enlarged = small.new_empty(1, 3, scale * height, scale * width)
    for row, column in product(range(parts), repeat=2):
        top, end, left, right = (
            n * at // parts for n, at in ((height, row), (height, row + 1), (width, column), (width, column + 1))
        )
        first = max(0, top - BORDER), max(0, left - BORDER)
        found = method(small[..., first[0] : end + BORDER, first[1] : right + BORDER], scale)
        inner = (
            slice(scale * (start - at), scale * (stop - at))
            for start, stop, at in ((top, end, first[0]), (left, right, first[1]))
        )
        enlarged[..., scale * top : scale * end, scale * left : scale * right] = found[(..., *inner)]
    return enlarged


def methods(model: Path | None) -> dict[str, Method]:
    ours = {
        f"network, {cross_scale} cross-scale, {in_scale} in-scale": partial(
            by_network, cross_scale=cross_scale, in_scale=in_scale, model=model
        )
        for in_scale in ("local", "full")
        for cross_scale in ("psal", "full")
    }
    pieces = partial(in_pieces, method=ours["network, full cross-scale, local in-scale"])
    return {"bicubic": bicubic, "without weights": without_weights, **ours, PIECES: pieces}


@dataclass(frozen=True)
class Case:
    """An image at one scale."""

    folder: str
    path: Path
    scale: int

    def images(self) -> tuple[Tensor, Tensor]:
        """The truth and the small image, RGB in [0, 1]."""
        color = read_image(self.path).color.expand(1, 3, -1, -1)
        height, width = (n - n % self.scale for n in color.shape[2:])
        truth = color[..., :height, :width]
        small = functional.interpolate(
            truth, (height // self.scale, width // self.scale), mode="bicubic", antialias=True
        )
        return truth, rounded(small)

    def pairs(self) -> int:
        """How many queries and keys full cross-scale attention compares, at most, in one application."""
        _, small = self.images()
        ratio = 2 if self.scale == 4 else self.scale
        positions = small[0, 0].numel() * (4 if self.scale == 4 else 1)
        return positions**2 // ratio**2


def rounded(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def luma(image: Tensor) -> Tensor:
    """Y of YCbCr, 16 to 235, of RGB in [0, 1]."""
    weights = image.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    return (rounded(image) * weights).sum(1, keepdim=True) + 16


def quality_of(found: Tensor, truth: Tensor, border: int) -> dict[str, float]:
    ours, theirs = (luma(image)[..., border:-border, border:-border] for image in (found, truth))
    return {
        "psnr": peak_signal_noise_ratio(ours, theirs, data_range=255.0),
        "ssim": structural_similarity(ours, theirs, data_range=255.0),
    }


def measure(case: Case, name: str, method: Method) -> tuple[dict[str, Any], Tensor]:
    truth, small = case.images()
    method(small[..., :WARM_UP, :WARM_UP], case.scale)
    began = time.process_time()
    memory, found = peak_beyond(lambda: method(small, case.scale))
    seconds = time.process_time() - began
    told = {"set": case.folder, "image": case.path.stem, "scale": case.scale, "method": name}
    told |= {"pixels": small[0, 0].numel(), **quality_of(found, truth, case.scale)}
    return {**told, "seconds": seconds, "memory": memory}, found


def cases(data: Path, sets: list[str], scales: list[int]) -> list[Case]:
    found = []
    for scale in scales:
        for name in sets:
            paths = sorted((data / name).glob("*.png"))
            if not paths:
                sys.exit(f"--data: {data} lacks {name}/*.png; put them there or give another folder")
            found += [Case(name, path, scale) for path in paths]
    return found


def key_of(entry: dict[str, Any]) -> tuple[Any, ...]:
    return entry["set"], entry["image"], entry["scale"], entry["method"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--scales", nargs="+", type=int, choices=(2, 3, 4), default=[2, 3, 4])
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these methods (default: all)")
    parser.add_argument("--model", type=Path, help="network instead of the one that comes along; {scale} is filled in")
    parser.add_argument("--pairs", type=float, default=float("inf"), help="the most that full attention compares")
    parser.add_argument("--results", type=Path, help="where superresolution.md, .json and .jpg go")
    arguments = parser.parse_args()
    known = methods(arguments.model)
    unknown = set(arguments.only or []) - known.keys()
    if unknown:
        parser.error(f"--only: got {'; '.join(sorted(unknown))}; there are {'; '.join(known)}")
    check_plots(arguments.results)
    kept: list[dict[str, Any]] = []
    if arguments.results is not None and (arguments.results / "superresolution.json").exists():
        kept = json.loads((arguments.results / "superresolution.json").read_text())["results"]
    done = {key_of(entry) for entry in kept}
    for case in cases(arguments.data, arguments.sets, arguments.scales):
        for name, method in known.items():
            told = case.folder, case.path.stem, case.scale, name
            if told in done or (arguments.only is not None and name not in arguments.only):
                continue
            if "full" in name and name != PIECES and case.pairs() > arguments.pairs:
                continue
            entry, _ = measure(case, name, method)
            kept.append(entry)
            print(*told, f"{entry['psnr']:.2f} dB, {entry['ssim']:.4f}, {entry['seconds']:.2f} s", flush=True)
            if arguments.results is not None:
                write(arguments.results, kept, None)
    if arguments.results is not None and arguments.only is None:
        made = images(arguments.data, known)
        path = arguments.results / "superresolution.jpg"
        draw(made, path)
        write(arguments.results, kept, path)


def images(data: Path, known: dict[str, Method]) -> dict[str, dict[str, Tensor]]:
    """What the methods make of the facades at scale 3, full attention in pieces."""
    made: dict[str, dict[str, Tensor]] = {}
    with torch.no_grad():
        for case in cases(data, ["urban100"], [3]):
            truth, small = case.images()
            results = {name: known[name](small, 3) for name in known if "full" not in name or name == PIECES}
            made[case.path.stem] = {**results, "truth": truth}
    return made


if __name__ == "__main__":
    main()
