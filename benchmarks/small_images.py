"""Attention on small images, forward and backward, beside the dense definition in plain PyTorch.

The dense definition takes the three best of all pairs of patches (`unfold`, products, `topk`), and attends to them by a
softmax (l2, float32, temperature 1). It is written in two ways, of which the faster counts in each cell: gradients go
through the matrix of all pairs, or the similarities of the three are measured again from gathered patches, and the
matrix needs no gradient. Features are three smooth colors, mixed to the channels; query, key and value differ and all
three want gradients.

All take turns, call by call, in one process, so that what else the machine does falls on all alike: compare by ratios.

    taskset -c 0 python benchmarks/small_images.py --threads 1 --json out/small_images.json
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import machine, save, spread, table
from torch import Tensor
from torch.nn.functional import interpolate, pad, unfold

from patchattn import patch_attention

K = 3
SIDES, BATCHES, CHANNELS, PATCHES = (24, 32, 40), (1, 8), (3, 16), (1, 3, 5, 7)
GOALS = ((64, 16, 16, 3), (1, 3, 8, 3), (1, 16, 8, 7))
"""Batch, channels, side and patch of the cells that come first."""

Layer = Callable[[Tensor, Tensor, Tensor], Tensor]


def patches(image: Tensor, size: int) -> Tensor:
    """All patches, `(B, positions, elements)`."""
    if size == 1:
        return image.flatten(2).mT
    return unfold(pad(image, (size // 2,) * 4, mode="reflect"), size).mT


def take(rows: Tensor, index: Tensor) -> Tensor:
    """The rows that an index `(B, n, k)` names: `(B, n, k, elements)`."""
    flat = index.flatten(1)[..., None].expand(-1, -1, rows.shape[2])
    return rows.gather(1, flat).view(*index.shape, -1)


def dense(query: Tensor, key: Tensor, value: Tensor, size: int, *, measured_again: bool) -> Tensor:
    """Attend to the K best of all pairs of patches."""
    q, k = patches(query, size), patches(key, size)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not measured_again):
        every = 2 * q @ k.mT - k.square().sum(-1)[:, None] - q.square().sum(-1)[..., None]
        similarity, index = every.topk(K)
    if measured_again:
        similarity = -(q[:, :, None] - take(k, index)).square().sum(-1)
    output = (similarity.softmax(-1)[..., None] * take(value.flatten(2).mT, index)).sum(2)
    return output.mT.reshape(query.shape[0], -1, *query.shape[2:])


def features(batch: int, channels: int, side: int) -> list[Tensor]:
    """Query, key and value."""
    torch.manual_seed(0)
    coarse = max(side // 4, 2)
    mixing = torch.rand(channels, 3)
    images = (interpolate(torch.rand(batch, 3, coarse, coarse), (side, side), mode="bicubic") for _ in range(3))
    return [torch.einsum("oc,bchw->bohw", mixing, image).contiguous().requires_grad_() for image in images]


def once(layer: Layer, inputs: list[Tensor]) -> float:
    """Seconds of one call with its gradients."""
    for tensor in inputs:
        tensor.grad = None
    start = time.perf_counter()
    output = layer(*inputs)
    output.backward(torch.ones_like(output))
    return time.perf_counter() - start


def measure(batch: int, channels: int, side: int, size: int, budget: float) -> dict[str, Any]:
    """Milliseconds of all three, in turns, for about so many seconds."""
    inputs = features(batch, channels, side)
    layers: dict[str, Layer] = {
        "patchattn": partial(patch_attention, k=K, patch_size=size),
        "dense": partial(dense, size=size, measured_again=False),
        "dense, measured again": partial(dense, size=size, measured_again=True),
    }
    # The library's own choice of a method may be a search that is not exact; what is compared here is.
    output = patch_attention(*inputs, k=K, patch_size=size, method="exact").detach()
    for name in ("dense", "dense, measured again"):
        # Float32 products may rank keys that are nearly alike otherwise.
        assert float((output - layers[name](*inputs).detach()).abs().mean()) < 1e-3, "these do not compute the same"
    for layer in layers.values():
        once(layer, inputs)
    times: dict[str, list[float]] = {name: [] for name in layers}
    end = time.perf_counter() + budget
    while time.perf_counter() < end or len(times["dense"]) < 5:
        for name, layer in layers.items():
            times[name].append(1e3 * once(layer, inputs))
    found = {
        name: {"median": statistics.median(t), "min": min(t), "max": max(t), "runs": len(t)}
        for name, t in times.items()
    }
    best = min(found["dense"]["median"], found["dense, measured again"]["median"])
    cell = {"batch": batch, "channels": channels, "side": side, "patch": size}
    return {**cell, "milliseconds": found, "ratio": found["patchattn"]["median"] / best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each cell")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cells = [*GOALS, *((b, c, n, p) for n, c, b, p in itertools.product(options.sides, CHANNELS, BATCHES, PATCHES))]
    results = [measure(*cell, options.seconds) for cell in cells]
    rows = []
    for result in results:
        batch, channels, side, size = (result[name] for name in ("batch", "channels", "side", "patch"))
        times = [spread(result["milliseconds"][name]) for name in result["milliseconds"]]
        rows.append([f"{batch} x {channels} x {side} x {side}", f"{size}x{size}", *times, f"{result['ratio']:.2f}"])
    print(f"{machine()}\n")
    print(table(["images", "patch", "patchattn", "dense", "dense, measured again", "ratio to the faster"], rows))
    losing = [
        f"{row[0]}, {row[1]} ({row[-1]})" for row, result in zip(rows, results, strict=True) if result["ratio"] > 1
    ]
    print(f"\nSlower than the dense definition: {'; '.join(losing) or 'none'}.")
    save(options.json, results)


if __name__ == "__main__":
    main()
