"""Inpainting networks with the original contextual attention and with PSAL in its place: PSAL's Table 6.

    python benchmarks/table6.py --checkpoint FILE [FILE ...] --data FOLDER [--size 256] [--hole 128] [--count 100]
                                [--results FOLDER]

FILE: a network that `patchattn train inpainting` has written, or a public checkpoint. FOLDER: images that it has not
seen. Each network is measured with both attentions, on the same squares of `--size` pixels with a hole of `--hole`
somewhere. All errors are of the hole alone, colors in [0, 1].
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from machine import table
from page import machine_line, write_page
from torch import Tensor

from patchattn.networks.inpainting import ATTENTIONS
from patchattn.networks.weights import load_inpainting_network
from patchattn.tasks.image_quality import peak_signal_noise_ratio, structural_similarity
from patchattn.training.holes import Holes, HoleSizes, draw_holes
from patchattn.training.image_dataset import ImageDataset, find_images

PAPER = {"contextual": (11.8, 3.6, 16.4, 6.6, 53.7), "psal": (11.6, 3.6, 16.6, 6.9, 54.1)}
HEADINGS = ("l1 in %", "l2 in %", "PSNR in dB", "TV in %", "SSIM in %")


@dataclass(frozen=True)
class Quality:
    """Of filled holes; means over images. TV needs no truth."""

    l1: float
    l2: float
    psnr: float
    tv: float
    ssim: float

    def cells(self) -> list[str]:
        return [f"{100 * self.l1:.2f}", f"{100 * self.l2:.2f}", f"{self.psnr:.2f}", f"{100 * self.tv:.2f}",
                f"{100 * self.ssim:.1f}"]  # fmt: skip


def total_variation(images: Tensor) -> float:
    """|x[i+1] - x[i]| + |x[j+1] - x[j]|, the mean over pixels and colors."""
    return float(images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean())


def quality_of(filled: Tensor, truth: Tensor) -> Quality:
    """Of one image's hole."""
    difference = filled - truth
    return Quality(
        float(difference.abs().mean()),
        float(difference.square().mean()),
        peak_signal_noise_ratio(filled, truth, data_range=1.0),
        total_variation(filled),
        structural_similarity(filled, truth, data_range=1.0),
    )


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    each = [asdict(quality) for quality in qualities]
    return Quality(**{name: mean(entry[name] for entry in each) for name in each[0]})


def drawn(images: ImageDataset, sizes: HoleSizes, count: int) -> Iterator[Holes]:
    """One at a time: the same for every network."""
    return (draw_holes(images, [number], seed=0, sizes=sizes) for number in range(count))


def measure(checkpoint: Path, attention: str | None, images: ImageDataset, sizes: HoleSizes, count: int) -> Quality:
    """A network with one attention; None: nothing is filled but gray, to compare with."""
    network = None if attention is None else load_inpainting_network(checkpoint, attention=attention)
    found = []
    for holes in drawn(images, sizes, count):
        truth = (holes.truth + 1) / 2
        with torch.no_grad():
            filled = torch.full_like(truth, 0.5) if network is None else network.fill(truth, holes.hole)
        found.append(quality_of(*(holes.around(image) for image in (filled, truth))))
    return mean_quality(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, nargs="+", required="--help" not in sys.argv)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--size", type=int, default=256, help="side of the squares")
    parser.add_argument("--hole", type=int, default=128, help="side of the holes")
    parser.add_argument("--count", type=int, default=100, help="how many squares")
    parser.add_argument("--results", type=Path, help="where table6.md and .json go")
    arguments = parser.parse_args()
    images, sizes = find_images(arguments.data), HoleSizes(arguments.size, arguments.hole, 0)
    gray = measure(arguments.checkpoint[0], None, images, sizes, arguments.count)
    rows, results = [["", "gray, nothing filled", *gray.cells()]], []
    for checkpoint in arguments.checkpoint:
        for attention in ATTENTIONS:
            found = measure(checkpoint, attention, images, sizes, arguments.count)
            name = f"{checkpoint.parent.name}/{checkpoint.name}"
            rows.append([name, attention, *found.cells()])
            results.append({"checkpoint": name, "attention": attention, **asdict(found)})
    for attention, numbers in PAPER.items():
        rows.append(["the paper, 256x256, Places2", attention, *(f"{number:.1f}" for number in numbers)])
    parts = [
        "# Inpainting networks with either attention (PSAL, Table 6)",
        f"{arguments.count} squares of {sizes.image}x{sizes.image} pixels with holes of {sizes.hole}x{sizes.hole}; "
        "means over the holes. The attention named is the one that the network is measured with, whatever it was "
        "trained with. TV: the sum of the differences to the right and lower neighbors, a mean over pixels. "
        "Written by `python benchmarks/table6.py --checkpoint FILE ... --data FOLDER --results docs/results`.",
        table(["network", "attention", *HEADINGS], rows),
        machine_line(),
    ]
    print("\n\n".join(parts))
    if arguments.results is not None:
        write_page(arguments.results, "table6", parts, results)


if __name__ == "__main__":
    main()
