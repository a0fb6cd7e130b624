"""What guided search finds in sequences: its cost over that of exact search, and its time for each position.

    python benchmarks/sequences.py [--lengths 20000 100000] [--results DIR]

Query and key are different parts of a signal of one kind: rows of photographs end to end (scikit-image's; no position
is above another then), the log-mel spectrogram of a voice-like sound, the same with noise, a smoothed random walk of
eight numbers, and white noise. The cost is the mean squared distance to the matches found, over that to the exact ones
of 2,000 of the queries.
"""

from __future__ import annotations

import argparse
from math import prod
from pathlib import Path
from typing import Any

import skimage.data
import torch
from machine import Report, seconds, table
from page import machine_line, write_page
from torch import Tensor

from patchattn import match

SAMPLE = 2000
CASES = ((1, 7), (3, 7), (3, 15))
"""k and patch size."""


def rows(count: int, seed: int) -> Tensor:
    """The rows of a photograph, one after the other: `(1, 3, count)`."""
    name = ("astronaut", "coffee")[seed]
    image = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1) / 255
    return image.reshape(3, -1).repeat(1, 2)[None, :, :count].contiguous()


def mel(count: int, seed: int, noise: float = 0.0) -> Tensor:
    """Log energies in 40 mel bands of tones with overtones whose pitch and loudness wander: `(1, 40, count)`."""
    generator = torch.Generator().manual_seed(seed)
    rate, hop, window = 16000, 160, 512
    samples = torch.arange(count * hop + window) / rate
    slow = torch.nn.functional.interpolate(
        torch.randn(1, 2, len(samples) // 3200, generator=generator), len(samples), mode="linear"
    )[0]
    phase = (2 * torch.pi * 120 * 2 ** (0.5 * slow[0]) / rate).cumsum(0)
    sound = sum((n * phase).sin() / n for n in range(1, 20)) * slow[1].sigmoid()
    sound = sound + noise * torch.randn(len(samples), generator=generator)
    power = (
        torch.stft(sound, window, hop, window=torch.hann_window(window), center=False, return_complex=True).abs() ** 2
    )
    edges = 700 * (10 ** (torch.linspace(0, 2840, 42) / 2595) - 1) / rate * window
    bins = torch.arange(power.shape[0])[None]
    left, center, right = (edges[n : n + 40, None] for n in range(3))
    bands = torch.minimum((bins - left) / (center - left), (right - bins) / (right - center)).clamp(min=0)
    return (bands @ power).add(1e-3).log()[None, :, :count]


def walk(count: int, seed: int) -> Tensor:
    """A random walk of eight numbers, smoothed: `(1, 8, count)`."""
    steps = torch.randn(1, 8, count + 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool1d(steps.cumsum(2) / 20, 9, 1)


def noise(count: int, seed: int) -> Tensor:
    return torch.randn(1, 8, count, generator=torch.Generator().manual_seed(seed))


KINDS: dict[str, Any] = {
    "rows of photographs": rows,
    "log-mel frames": mel,
    "log-mel frames with noise": lambda count, seed: mel(count, seed, 0.05),
    "smoothed random walk": walk,
    "white noise": noise,
}


def measure(kind: str, count: int, k: int, patch: int) -> dict[str, Any]:
    query, key = (KINDS[kind](count, seed) for seed in (0, 1))
    settings: dict[str, Any] = {"k": k, "patch_size": (patch,)}
    field = match(query, key, method="guided", **settings)
    asked = torch.zeros(1, count, dtype=torch.bool)
    asked[0, torch.randperm(count, generator=torch.Generator().manual_seed(2))[:SAMPLE]] = True
    exact = match(query, key, method="exact", query_mask=asked, **settings)
    found, best = (-x.similarity[0, 0][:, asked[0]].double().sum() for x in (field, exact))
    time = seconds(lambda: match(query, key, method="guided", **settings), runs=3, warm_up=False)
    return {
        "kind": kind, "length": count, "k": k, "patch": patch, "cost": float(found / best),
        "microseconds": 1e6 * time["median"] / prod(query.shape[2:]),
    }  # fmt: skip


def report(lengths: list[int]) -> Report:
    results = [measure(kind, count, k, patch) for count in lengths for kind in KINDS for k, patch in CASES]
    return Report(
        "What does guided search find in sequences?",
        ["signal", "positions", "k", "patch", "cost over exact", "microseconds a position"],
        [
            [
                r["kind"],
                f"{r['length']:,}",
                str(r["k"]),
                str(r["patch"]),
                f"{r['cost']:.3f}",
                f"{r['microseconds']:.1f}",
            ]
            for r in results
        ],
        results,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=int, nargs="+", default=[20_000, 100_000], help="positions of a sequence")
    parser.add_argument("--results", type=Path, help="folder to write sequences.md and sequences.json to")
    arguments = parser.parse_args()
    found = report(arguments.lengths)
    found.show()
    if arguments.results is not None:
        written = "Written by `python benchmarks/sequences.py --results docs/results`. " + machine_line()
        parts = ["# Sequences", written, found.question, table(found.headings, found.rows)]
        write_page(arguments.results, "sequences", parts, found.results)


if __name__ == "__main__":
    main()
