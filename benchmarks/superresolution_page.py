"""The page of benchmarks/superresolution.py: one table a set and scale."""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from machine import save, table
from page import image_link, machine_line, write_page

SETS = {"set5": "Set5", "set14": "Set14", "urban100": "Urban100"}
"""Folders, and what the literature calls them."""
PUBLISHED = {
    ("set5", 2): (33.66, 36.49, 45.78), ("set5", 3): (30.39, 32.58, 33.44), ("set5", 4): (28.42, 30.31, 29.18),
    ("set14", 2): (30.24, 32.22, 105.00), ("set14", 3): (27.55, 29.16, 74.69), ("set14", 4): (26.00, 27.40, 65.08),
    ("urban100", 2): (26.88, 29.54, 663.98), ("urban100", 3): (24.46, 26.44, 473.60),
    ("urban100", 4): (23.14, 24.79, 394.40),
}  # fmt: skip
"""PSNR of bicubic interpolation and of SelfExSR (Huang et al. 2015), which has no weights either, and the seconds that
Kim et al. (2016, Table 3) give for it."""
PSAL = "network, psal cross-scale, local in-scale"
FULL = "network, full cross-scale, local in-scale"
PIECES = "network, full cross-scale in pieces, local in-scale"


def write(folder: Path, results: list[dict[str, Any]], drawn: Path | None) -> None:
    """The page with the image, or the figures alone while they are being measured."""
    if drawn is None:
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / "superresolution.json", results)
        return
    parts = [
        "# Super-resolution",
        "PSNR in dB and SSIM on Y, means over a set's images; seconds of processor time (all threads together) and "
        "memory beyond what was there (what the allocator keeps of it, too) are means of one call each. SelfExSR "
        "(Huang et al. 2015) is as published, its seconds as Kim et al. (2016) measured them; for Urban100 over all of "
        "its 100 images, of which eight are measured here: its gain over bicubic interpolation is what can be "
        "compared. What was not measured on all images of a set is in the last table alone. Written by "
        "`python benchmarks/superresolution.py --data DIR --results docs/results`.",
        *tables(results),
        "## The network: PSAL in the place of full cross-scale attention",
        "The same weights, the same images; local attention in scale (Table 7 of PSAL). PSAL always sees the whole "
        "image; full attention does too, or it sees pieces of 60x60 pixels, as the published program cuts them. Ours "
        "streams; the last column is what the published layer holds of one whole image: a score for every pair of "
        "query and key.",
        exchange(results),
        machine_line(),
        image_link(drawn, "facades enlarged three times: where bicubic interpolation is farthest from the truth"),
    ]
    write_page(folder, "superresolution", parts, results)


def means(entries: list[dict[str, Any]]) -> list[str]:
    return [
        f"{mean(entry['psnr'] for entry in entries):.2f}",
        f"{mean(entry['ssim'] for entry in entries):.4f}",
        f"{mean(entry['seconds'] for entry in entries):.2f}",
        f"{mean(entry['memory'] for entry in entries) / 2**20:.0f}",
    ]


def tables(results: list[dict[str, Any]]) -> list[str]:
    parts, methods = [], dict.fromkeys(entry["method"] for entry in results)
    for scale in sorted({entry["scale"] for entry in results}):
        rows = []
        for folder, title in SETS.items():
            here = [entry for entry in results if (entry["set"], entry["scale"]) == (folder, scale)]
            whole = {entry["image"] for entry in here}
            for name in methods:
                own = [entry for entry in here if entry["method"] == name]
                if own and len(own) == len(whole):
                    rows.append([f"{title} ({len(own)})", name, *means(own)])
            if here:
                low, high, seconds = PUBLISHED[folder, scale]
                rows.append([title, f"SelfExSR, published (bicubic {low})", f"{high}", "", f"{seconds:.0f}", ""])
        headings = ["images", f"x{scale}", "PSNR", "SSIM", "seconds", "MiB"]
        parts += [f"## x{scale}", table(headings, rows)]
    return parts


def exchange(results: list[dict[str, Any]]) -> str:
    """PSAL and full attention on the images that both were measured on."""
    rows = []
    for scale in sorted({entry["scale"] for entry in results}):
        for folder, title in SETS.items():
            for name, how in ((FULL, "whole"), (PIECES, "in pieces")):
                ours, full = (by_image(results, folder, scale, method) for method in (PSAL, name))
                both = sorted(ours.keys() & full.keys())
                if both:
                    pairs = [(ours[image], full[image]) for image in both]
                    rows.append([f"x{scale}", f"{title} ({len(both)})", how, *compared(pairs)])
    headings = ["", "images", "full attention", "PSNR full", "PSAL", "PSAL less full (range)", "times the seconds",
                "times the memory", "MiB PSAL", "MiB of scores, published"]  # fmt: skip
    return table(headings, rows)


def by_image(results: list[dict[str, Any]], folder: str, scale: int, method: str) -> dict[str, dict[str, Any]]:
    wanted = folder, scale, method
    return {entry["image"]: entry for entry in results if (entry["set"], entry["scale"], entry["method"]) == wanted}


def compared(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """PSNR of full attention and of ours, their difference, and what full attention takes more."""
    gains = [ours["psnr"] - full["psnr"] for ours, full in pairs]
    more = [
        sum(full[what] for _, full in pairs) / sum(ours[what] for ours, _ in pairs) for what in ("seconds", "memory")
    ]
    return [
        f"{mean(full['psnr'] for _, full in pairs):.3f}",
        f"{mean(ours['psnr'] for ours, _ in pairs):.3f}",
        f"{mean(gains):+.3f} ({min(gains):+.3f} to {max(gains):+.3f})",
        *(f"{ratio:.1f}" for ratio in more),
        *(f"{mean(what(ours) for ours, _ in pairs) / 2**20:,.0f}" for what in (lambda entry: entry["memory"], scores)),
    ]


def scores(entry: dict[str, Any]) -> float:
    """Bytes of float32 scores of the layer that compares most; at x4 that is the second of two enlargements by 2."""
    ratio, positions = (2, 4 * entry["pixels"]) if entry["scale"] == 4 else (entry["scale"], entry["pixels"])
    return float(4 * positions**2 / ratio**2)
