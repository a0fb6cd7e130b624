"""Large photographs completed at their own resolution by `patchattn inpaint`: time, memory and the images.

    python benchmarks/inpainting_highres.py --data DIR [--quality fast good] [--work FOLDER] [--results FOLDER]

DIR holds highres/*.jpg and places2/masks/NN.png. Each photograph is filled twice: eight squares of 128x128 pixels at
random places, and one hole of the shape of a thing (the masks in turn, enlarged) that covers 5 % of the area; each
with every quality. Every number is of the command as a whole, reading and writing included, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from inpainting_plot import draw
from machine import table
from numpy.typing import NDArray
from page import check_plots, image_link, machine_line, write_page
from PIL import Image, ImageOps

SIDE, SQUARES = 128, 8
MAX_TRIES = 10_000
"""Random places, after which a photograph is held to be too small for all squares."""
AREA = 0.05
"""Of the image, of the hole of the shape of a thing."""
GOAL = "10 megapixels with a hole of the shape of a thing, 5 % of the area, in less than 40 s and 3 GB"
CUT = 1100
"""Pixels of a cut-out in the plot, at most."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Filled:
    """One photograph, one kind of hole, one quality."""

    photograph: str
    hole: str
    quality: str
    width: int
    height: int
    share: float
    """Of the pixels, that are hole."""
    seconds: float
    """Of the whole command."""
    filling: float
    """Seconds of it without reading and writing."""
    memory: int
    """Bytes that the process held at most."""


def squares(width: int, height: int, seed: int) -> Mask:
    """Apart from each other."""
    generator = np.random.default_rng(seed)
    hole = np.zeros((height, width), bool)
    for _ in range(MAX_TRIES):
        y, x = generator.integers(0, (height - SIDE, width - SIDE))
        if not hole[max(0, y - SIDE) : y + 2 * SIDE, max(0, x - SIDE) : x + 2 * SIDE].any():
            hole[y : y + SIDE, x : x + SIDE] = True
        if hole.sum() == SQUARES * SIDE**2:
            return hole
    sys.exit(
        f"--data: {SQUARES} squares of {SIDE}x{SIDE} found no place in {width}x{height} pixels; put larger photographs "
        "into highres"
    )


def thing(mask: Mask, width: int, height: int, seed: int) -> Mask:
    """A mask enlarged to its share of the area, somewhere."""
    rows, columns = (np.nonzero(mask.any(axis))[0] for axis in (1, 0))
    shape = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    zoom = (AREA * width * height / shape.sum()) ** 0.5
    size = [min(round(zoom * n), limit) for n, limit in zip(shape.shape, (height, width), strict=True)]
    large = np.asarray(Image.fromarray(shape).resize((size[1], size[0])))
    generator = np.random.default_rng(seed)
    y, x = (int(generator.integers(0, limit - n + 1)) for n, limit in zip(size, (height, width), strict=True))
    hole = np.zeros((height, width), bool)
    hole[y : y + size[0], x : x + size[1]] = large
    return hole


def holes(photographs: list[Path], masks: list[Path]) -> Iterator[tuple[Path, str, Mask]]:
    for number, path in enumerate(photographs):
        width, height = ImageOps.exif_transpose(Image.open(path)).size
        mask = np.asarray(Image.open(masks[number % len(masks)]).convert("L")) > 127
        yield path, "squares", squares(width, height, number)
        yield path, "thing", thing(mask, width, height, number)


def fill(path: Path, kind: str, hole: Mask, quality: str, work: Path) -> Filled:
    """Run the command."""
    mask, output = work / f"{path.stem}-{kind}.mask.png", output_path(path, kind, quality, work)
    Image.fromarray(hole).save(mask)
    command = [sys.executable, "-m", "patchattn.cli", "inpaint", path, "--mask", mask, "-o", output, "--json"]
    start = time.perf_counter()
    printed = subprocess.run([*command, "--quality", quality], stdout=subprocess.PIPE, text=True, check=True).stdout
    seconds = time.perf_counter() - start
    report = json.loads(printed)
    return Filled(
        path.stem, kind, quality, report["width"], report["height"], float(hole.mean()), seconds, report["seconds"],
        report["peak_memory_bytes"],
    )  # fmt: skip


def output_path(path: Path, kind: str, quality: str, work: Path) -> Path:
    return work / f"{path.stem}-{kind}-{quality}.png"


def page(results: list[Filled]) -> list[str]:
    rows = [
        [
            entry.photograph,
            f"{entry.width}x{entry.height}",
            f"{SQUARES} squares of {SIDE}x{SIDE}" if entry.hole == "squares" else f"a thing, {entry.share:.1%}",
            entry.quality,
            f"{entry.seconds:.1f}",
            f"{entry.filling:.1f}",
            f"{entry.memory / 1e9:.2f}",
        ]
        for entry in results
    ]
    headings = ["photograph", "pixels", "hole", "quality", "seconds, whole command", "seconds, filling", "GB"]
    return [
        "# Inpainting of large photographs",
        "`patchattn inpaint PHOTO --mask MASK -o OUT --quality QUALITY`, each in a process of its own; GB: 10^9 bytes "
        f"that it held at most. The goal: {GOAL}. Written by `python benchmarks/inpainting_highres.py --data DIR "
        "--results docs/results`.",
        table(headings, rows),
        machine_line(),
    ]


def cut(hole: Mask, kind: str) -> tuple[slice, slice]:
    """A square about the hole, or about the first of the squares."""
    rows, columns = np.nonzero(hole)
    near = np.ones_like(rows, bool)
    if kind == "squares":
        near = (abs(rows - rows[0]) < SIDE) & (abs(columns - columns[0]) < SIDE)
    side = max(400, int(1.25 * max(np.ptp(rows[near]), np.ptp(columns[near]))))
    starts = [
        int(np.clip((at[near].min() + at[near].max() - side) // 2, 0, max(0, extent - side)))
        for at, extent in zip((rows, columns), hole.shape, strict=True)
    ]
    return slice(starts[0], starts[0] + side), slice(starts[1], starts[1] + side)


def shown(path: Path, kind: str, hole: Mask, qualities: list[str], work: Path) -> dict[str, Any]:
    """What the plot shows: cut out, and small enough."""
    part = cut(hole, kind)
    paths = {"truth": path, **{quality: output_path(path, kind, quality, work) for quality in qualities}}
    cuts = {
        name: Image.fromarray(np.asarray(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))[part])
        for name, file in paths.items()
    }
    size = min(CUT, cuts["truth"].width), min(CUT, cuts["truth"].height)
    small = {name: image.resize(size) for name, image in cuts.items()}
    mask = Image.fromarray(hole[part]).resize(size)
    return {**{name: np.asarray(image) for name, image in small.items()}, "hole": np.asarray(mask)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--quality", nargs="+", default=["fast", "good"], help="of the command (default: fast good)")
    parser.add_argument("--work", type=Path, default=Path("out/inpainting_highres"), help="for masks and images")
    parser.add_argument("--results", type=Path, help="where inpainting_highres.md, .json and .jpg go")
    arguments = parser.parse_args()
    photographs = sorted((arguments.data / "highres").glob("*.jpg"))
    masks = sorted((arguments.data / "places2" / "masks").glob("*.png"))
    if not photographs or not masks:
        sys.exit(f"--data: {arguments.data} lacks highres/*.jpg or places2/masks/*.png; put them there")
    check_plots(arguments.results)
    arguments.work.mkdir(parents=True, exist_ok=True)
    results, made = [], {}
    for path, kind, hole in holes(photographs, masks):
        for quality in arguments.quality:
            found = fill(path, kind, hole, quality, arguments.work)
            results.append(found)
            print(f"{path.stem}, {kind}, {quality}: {found.seconds:.1f} s, {found.memory / 1e9:.2f} GB", flush=True)
        made[f"{path.stem.split('_by_')[0]}, {kind}"] = shown(path, kind, hole, arguments.quality, arguments.work)
    parts = page(results)
    print("\n\n".join(parts))
    if arguments.results is not None:
        arguments.results.mkdir(parents=True, exist_ok=True)
        plot = arguments.results / "inpainting_highres.jpg"
        draw(made, arguments.quality, plot, around=False)
        parts.append(image_link(plot, "holes, completions and truth"))
        write_page(arguments.results, "inpainting_highres", parts, [asdict(entry) for entry in results])


if __name__ == "__main__":
    main()
