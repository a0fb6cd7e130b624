"""The page of benchmarks/inpainting.py: what is measured, and a table for each set."""

from __future__ import annotations

import math
from statistics import mean, median
from typing import Any

from inpainting_methods import NOTES
from inpainting_sets import SETS
from machine import table
from page import machine_line

TRUTH = "the truth"
"""The row of what a natural image repeats."""
MEASURES = {
    "psnr": ("PSNR in dB", "{:.2f}"),
    "ssim": ("SSIM", "{:.4f}"),
    "sharp": ("sharpness", "{:.3f}"),
    "abs_log": ("abs log sharpness", "{:.3f}"),
    "texture": ("texture", "{:.4f}"),
    "texture2": ("texture at half size", "{:.4f}"),
    "repeated_copies": ("repeated copies", "{:.1%}"),
}
"""Heading and format of each measure's mean."""


def page(entries: list[dict[str, Any]], skipped: list[str], threads: int) -> list[str]:
    """Everything but the image; `skipped` are sentences on methods that are left out."""
    sets = list(dict.fromkeys(entry["set"] for entry in entries))
    return [
        "# Inpainting without weights",
        "Means over the images of each set. PSNR and SSIM are of whole images and reward haze: the mean of all likely "
        "completions beats one that looks right. The others are of the hole. Sharpness is the mean difference of "
        "neighboring pixels over the truth's, 1 is right; abs log sharpness the mean of its absolute logarithm, in "
        "which haze and noise do not cancel. Texture is the sliced Wasserstein distance between the patches of 7x7 in "
        "the hole and the truth's, each less its mean color (`benchmarks/completion_measures.py`). Repeated copies is "
        "the share of pixels whose source, the center of the nearest patch outside the hole, is that of more than two "
        "pixels (`benchmarks/repeated_copies.py`); the truth's own share is the one to compare with.",
        f"Every method has {threads} threads. All run in turn on each image; seconds are of the second call of two.",
        " ".join([*NOTES, *skipped]),
        f"Written by `python benchmarks/inpainting.py --data DIR --set {' '.join(sets)} --results docs/results`.",
        *(part for name in sets for part in section(name, [entry for entry in entries if entry["set"] == name])),
        machine_line(),
    ]


def section(dataset: str, entries: list[dict[str, Any]]) -> list[str]:
    """Heading, description and table of one set."""
    names = list(dict.fromkeys(entry["method"] for entry in entries if entry["method"] != TRUTH))
    names += [TRUTH] * any(entry["method"] == TRUTH for entry in entries)
    keys = [key for key in MEASURES if any(key in entry for entry in entries)]
    rows = []
    for name in names:
        own = [entry for entry in entries if entry["method"] == name]
        rows.append([name, *(mean_of(own, key) for key in keys), times_of(own)])
    headings = ["", *(MEASURES[key][0] for key in keys), "seconds: median (range)"]
    count = len({entry["image"] for entry in entries})
    failed = [
        f"{entry['method']} filled the hole of {entry['image']} with one color."
        for entry in entries
        if entry.get("sharp") == 0
    ]
    return [f"## {dataset}", f"{count} {SETS[dataset][1]}.", table(headings, rows), *failed]


def mean_of(entries: list[dict[str, Any]], key: str) -> str:
    """A measure's mean over the images that have it."""
    values = [entry[key] for entry in entries if not math.isnan(entry.get(key, math.nan))]
    return MEASURES[key][1].format(mean(values)) if values else ""


def times_of(entries: list[dict[str, Any]]) -> str:
    times = [entry["seconds"] for entry in entries if "seconds" in entry]
    return f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})" if times else ""
