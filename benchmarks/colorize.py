"""Guided colorization: how near do colors come to the true ones, and does a video drift?

    python benchmarks/colorize.py --data DIR [--results docs/results] [--model PATH|default] [--only SEQUENCE ...]

DIR holds davis/SEQUENCE/NNNNN.jpg: frames of a video, ten apart. Every file but the first is made gray and colored
after the file before it (near) and after the first one (far). Prints the tables; with --results writes them to
colorize.md there, the numbers to colorize.json, and one image for each test sequence, colorize-SEQUENCE.jpg.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from colorize_plot import draw
from machine import Report, table
from page import machine_line, write_page
from torch import Tensor, nn

from patchattn.tasks.colorize import colorize
from patchattn.tasks.colors import from_lab, to_gray, to_lab, with_luminance
from patchattn.tasks.frame_colorizer import FrameColorizer
from patchattn.tasks.image_quality import peak_signal_noise_ratio
from patchattn.tasks.images import Image, read_image

TEST = ("dog", "goat", "horsejump-high")
"""No setting was chosen on these."""

LEVELS = 256

Method = Callable[[Tensor, Tensor], Tensor]
"""From gray and reference to RGB."""


def chroma_psnr(color: Tensor, truth: Tensor) -> float:
    """PSNR of a* and b*, in dB, where 100 counts as their range."""
    output, target = (to_lab(image)[:, 1:].contiguous() for image in (color, truth))
    return peak_signal_noise_ratio(output, target, data_range=100.0)


def painted(chroma: Tensor, gray: Tensor) -> Tensor:
    """RGB of these a* and b* under the luminance of `gray`."""
    lightness = to_lab(gray.expand(-1, 3, -1, -1))[:, :1]
    return with_luminance(from_lab(torch.cat([lightness, chroma], 1)), gray)


def no_color(gray: Tensor, reference: Tensor) -> Tensor:
    """Gray as it is."""
    return gray.expand(-1, 3, -1, -1)


def copied(gray: Tensor, reference: Tensor) -> Tensor:
    """The reference's colors at the same place."""
    return painted(to_lab(reference)[:, 1:], gray)


def by_lightness(gray: Tensor, reference: Tensor) -> Tensor:
    """Global transfer: match the histograms of gray, then take the reference's mean a* and b* of that gray."""
    known = to_gray(reference).flatten()
    wanted = gray.flatten()
    rank = torch.searchsorted(wanted.sort().values, wanted, right=True).double() / len(wanted)
    matched = known.sort().values[(rank * (len(known) - 1)).long()]
    level, matched_level = ((values * (LEVELS - 1)).round().long() for values in (known, matched))
    count = torch.zeros(LEVELS).index_add_(0, level, torch.ones(len(level)))
    chroma = to_lab(reference)[0, 1:].flatten(1)
    mean = torch.zeros(2, LEVELS).index_add_(1, level, chroma) / count.clamp(min=1)
    return painted(mean[:, matched_level].view(1, 2, *gray.shape[2:]), gray)


def attended(gray: Tensor, reference: Tensor) -> Tensor:
    """What `patchattn colorize` does."""
    return colorize(gray, reference).image.color


def methods(network: nn.Module | None) -> dict[str, Method]:
    """What is compared, in the table's order."""
    known: dict[str, Method] = {
        "gray": no_color,
        "copy in place": copied,
        "global transfer": by_lightness,
        "attention": attended,
    }
    if network is not None:
        known["network"] = lambda gray, reference: colorize(gray, reference, network=network).image.color
    return known


def report_pairs(sequences: dict[str, list[Tensor]], compared: dict[str, Method]) -> Report:
    """Chroma PSNR of every sequence and method, for near and far references."""
    rows, results = [], []
    for name, frames in sequences.items():
        for distance in ("near", "far"):
            found = {}
            for method, function in compared.items():
                values = [
                    chroma_psnr(function(to_gray(frame), frames[i - 1 if distance == "near" else 0]), frame)
                    for i, frame in enumerate(frames)
                    if i > 0
                ]
                found[method] = statistics.fmean(values)
            results.append({"sequence": name, "reference": distance, "pairs": len(frames) - 1, "chroma_psnr": found})
            best = max(found, key=lambda method: found[method])
            shown = [f"**{value:.2f}**" if method == best else f"{value:.2f}" for method, value in found.items()]
            rows.append([f"{name}{' (test)' if name in TEST else ''}", distance, *shown])
            print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return Report(
        "How near do colors come? PSNR of a* and b* in dB (100 counts as the range), mean over the sequence. near: "
        "the reference is the file before, ten frames earlier; far: the sequence's first file. No setting was chosen "
        "on the sequences marked as test.",
        ["sequence", "reference", *compared],
        rows,
        results,
    )


def report_videos(sequences: dict[str, list[Tensor]]) -> Report:
    """Chroma PSNR of a video's frames, for the ways to color one after another."""
    rows, results = [], []
    for name, frames in sequences.items():
        ways: dict[str, Callable[[Image], Any]] = {
            "each from the reference": FrameColorizer(Image(frames[0])),
            "the same, every search anew": lambda image, first=frames[0]: colorize(image, first),
            "from the previous result": FrameColorizer(Image(frames[0]), source="previous"),
        }
        found = {
            way: [chroma_psnr(color(Image(to_gray(frame))).image.color, frame) for frame in frames[1:]]
            for way, color in ways.items()
        }
        results.append({"sequence": name, "chroma_psnr": found})
        rows.append([name, *(f"{statistics.fmean(values):.2f}, {values[-1]:.2f}" for values in found.values())])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return Report(
        "Does a video drift? The first file is the reference for all that follow, ten frames apart each. PSNR of a* "
        "and b* in dB: mean over the sequence, last file.",
        ["sequence", *ways],
        rows,
        results,
    )


def images(sequences: dict[str, list[Tensor]], compared: dict[str, Method], folder: Path) -> None:
    """One image for each test sequence: its last file, colored after the file before and after the first one."""
    for name in set(TEST) & set(sequences):
        frames = sequences[name]
        truth = frames[-1]
        rows = []
        for title, reference in (("near", frames[-2]), ("far", frames[0])):
            columns = {
                "target": to_gray(truth).expand(-1, 3, -1, -1),
                f"reference ({title})": reference,
                "truth": truth,
            }
            for method, function in compared.items():
                if function is not no_color:
                    color = function(to_gray(truth), reference)
                    columns[f"{method}, {chroma_psnr(color, truth):.1f} dB"] = color
            rows.append(columns)
        draw(rows, folder / f"colorize-{name}.jpg")


def shown(sequences: dict[str, list[Tensor]]) -> list[str]:
    """What the report says of the images."""
    lines = [f"![{name}](colorize-{name}.jpg)" for name in TEST if name in sequences]
    return [*lines, "Frames: DAVIS 2016, its authors' own clips, CC BY 4.0; changed as told."] if lines else []


def read_sequences(data: Path, only: list[str] | None) -> dict[str, list[Tensor]]:
    """The frames of every sequence, or stop the program with what is missing."""
    folder = data / "davis"
    if not folder.is_dir():
        sys.exit(f"--data: there is no folder {folder}")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if unknown := set(only or ()) - set(names):
        sys.exit(f"--only: {', '.join(sorted(unknown))}: not in {folder}, which has {', '.join(names)}")
    return {name: [read_image(path).color for path in sorted((folder / name).glob("*.jpg"))] for name in only or names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with davis/SEQUENCE/*.jpg")
    parser.add_argument("--results", type=Path, help="folder for colorize.md, colorize.json and the images")
    parser.add_argument("--model", help="a network's weights, or `default` for those that ship")
    parser.add_argument("--only", nargs="+", metavar="SEQUENCE", help="measure these alone")
    arguments = parser.parse_args()
    sequences = read_sequences(arguments.data, arguments.only)
    network = None
    if arguments.model is not None:
        from patchattn.networks.weights import load_colorization_network

        network = load_colorization_network(None if arguments.model == "default" else arguments.model)
    compared = methods(network)
    reports = [report_pairs(sequences, compared), report_videos({n: f for n, f in sequences.items() if n in TEST})]
    for report in reports:
        report.show()
    if arguments.results is not None:
        tables = [part for report in reports for part in (report.question, table(report.headings, report.rows))]
        parts = [
            "# Guided colorization",
            f"Written by `python benchmarks/colorize.py --data DIR --results docs/results`. {machine_line()}",
            *tables,
            *shown(sequences),
        ]
        results = [result for report in reports for result in report.results]
        write_page(arguments.results, "colorize", parts, results)
        images(sequences, compared, arguments.results)


if __name__ == "__main__":
    main()
