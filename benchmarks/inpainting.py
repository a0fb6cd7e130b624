"""Inpainting without weights beside other programs: likeness to the truth, repeated copies, time, and the images.

    python benchmarks/inpainting.py --data DIR [--set SET ...] [--only METHOD ...] [--made FOLDER] [--results FOLDER]

DIR holds, for the sets that are asked for, places2/images/NN.jpg and places2/masks/NN.png, where white is the hole;
bsds500/*.jpg (of which every fourth is taken, with the masks of places2); removal/images/NN.png and
removal/masks/NN.png. The Python packages compared with are in the extra `bench`; G'MIC is the program `gmic` on PATH
(Debian: `gmic`), and is left out where there is none. Times are of the second call of two, with two threads for every
method; all run in turn on each image. `--made` writes every completion, for benchmarks/inpainting_ratings.py.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from completion_measures import CompletionMeasures
from inpainting_methods import GMIC, REFERENCE, Bytes, Method, choose, folder_name, limit_threads, to_gray, to_tensor
from inpainting_page import TRUTH, page
from inpainting_plot import draw
from inpainting_sets import SETS, Case, load
from numpy.typing import NDArray
from page import check_plots, image_link, write_page
from PIL import Image
from repeated_copies import repeated_copies

from patchattn.tasks.image_quality import peak_signal_noise_ratio, structural_similarity

THREADS = 2
SHOWN = ("OpenCV, Telea", REFERENCE, GMIC, "patchattn, good")
DRAWN = "places2"
"""The set whose completions the page shows."""


def run(case: Case, methods: dict[str, Method]) -> tuple[dict[str, Bytes], dict[str, float]]:
    """Return each method's completion, and the seconds of its second call."""
    made, seconds = {}, {}
    for name, method in methods.items():
        method(case.image, case.hole)
        start = time.perf_counter()
        filled = method(case.image, case.hole)
        seconds[name] = time.perf_counter() - start
        # A completion is what lies in the hole; some programs change the pixels around it too.
        made[name] = np.where(case.hole[..., None], filled, case.image)
    return made, seconds


def measure(case: Case, made: dict[str, Bytes], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """One entry for each completion, and one for the truth if it is known."""
    compare = comparison(case) if case.has_truth else None
    original = in_floats(case.image)
    entries = []
    for name, filled in {**made, **({TRUTH: case.image} if case.has_truth else {})}.items():
        entry: dict[str, Any] = {"set": case.dataset, "image": case.number, "method": name}
        if name != TRUTH:
            entry["seconds"] = seconds[name]
        if name != TRUTH and compare is not None:
            entry.update(compare(filled))
        entry["repeated_copies"] = repeated_copies(in_floats(filled), original, case.hole)
        entries.append(entry)
    return entries


def comparison(case: Case) -> Callable[[Bytes], dict[str, float]]:
    """Measures of a completion beside the truth: over the whole image, then in the hole."""
    truth, in_hole = to_tensor(case.image), CompletionMeasures(in_floats(case.image), case.hole)

    def compare(filled: Bytes) -> dict[str, float]:
        image = to_tensor(filled)
        return {
            "psnr": peak_signal_noise_ratio(image, truth, data_range=1.0),
            "ssim": structural_similarity(image, truth, data_range=1.0),
            **in_hole(in_floats(filled)),
        }

    return compare


def in_floats(image: Bytes) -> NDArray[np.float64]:
    return image / 255


def write_made(folder: Path, case: Case, made: dict[str, Bytes]) -> None:
    """Write the image, its hole, and what each method made of it."""
    for name, image in {"image": case.image, "hole": to_gray(case.hole), **made}.items():
        path = folder / folder_name(name) / f"{case.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


def finite(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with None for what JSON has no number for."""
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()}
        for entry in entries
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--set", nargs="+", dest="sets", choices=SETS, default=[DRAWN], help="default: places2")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="these methods (default: all)")
    parser.add_argument("--made", type=Path, help="where every completion goes, as METHOD/SET-NN.png")
    parser.add_argument("--results", type=Path, help="where inpainting.md, .json and, of places2, .jpg go")
    arguments = parser.parse_args()
    limit_threads(THREADS)
    try:
        methods, skipped = choose(arguments.only)
    except ValueError as error:
        parser.error(f"--only: {error}")
    for sentence in skipped:
        print(sentence, flush=True)
    if not methods:
        parser.error("--only: no method is left that can run")
    cases = [case for name in dict.fromkeys(arguments.sets) for case in load(arguments.data, name)]
    check_plots(arguments.results)
    entries: list[dict[str, Any]] = []
    drawn: dict[str, dict[str, Any]] = {}
    for case in cases:
        made, seconds = run(case, methods)
        if arguments.made is not None:
            write_made(arguments.made, case, made)
        if case.dataset == DRAWN:
            drawn[case.number] = {**made, "truth": case.image, "hole": case.hole}
        entries += measure(case, made, seconds)
        print(f"{case.name}: " + ", ".join(f"{name} {seconds[name]:.2f} s" for name in methods), flush=True)
    parts = page(entries, skipped, THREADS)
    print("\n\n".join(parts))
    if arguments.results is not None:
        if drawn:
            path = arguments.results / "inpainting.jpg"
            draw(drawn, [name for name in SHOWN if name in methods], path)
            parts.append(image_link(path, "holes, completions and truth"))
        write_page(arguments.results, "inpainting", parts, finite(entries))


if __name__ == "__main__":
    main()
