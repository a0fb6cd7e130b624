"""The inpainting network over ever larger images with PSAL as its attention: memory and time of one pass, no tiles.

    python benchmarks/inpainting_network_scaling.py --data DIR [--checkpoint FILE] [--results FOLDER]

DIR holds highres/*.jpg, of which the first is cut and resized to 2700x3300 pixels and to halves of that; eight holes of
128x128. Without a checkpoint the network has the paper's size and random weights, which cost the same. Every number is
of a process of its own: the peak beyond the image, of the whole pass, and of the attention alone on features of that
size. What the original layer would need is computed; the network with it refuses.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from machine import table
from page import machine_line, write_page
from process import Forks, peak_beyond
from torch import Tensor

from patchattn.attention.contextual import contextual_memory
from patchattn.networks.architectures import InpaintingArchitecture
from patchattn.networks.inpainting import InpaintingNetwork
from patchattn.networks.weights import load_inpainting_network
from patchattn.tasks.images import read_image

HEIGHT, WIDTH, HOLE, HOLES = 2700, 3300, 128, 8
PARTS = (4, 2, 1)
"""By which height and width are divided."""
STRIDE = 4
"""Of the network's features."""


def network_of(checkpoint: Path | None, attention: str) -> InpaintingNetwork:
    if checkpoint is not None:
        return load_inpainting_network(checkpoint, attention=attention)
    torch.manual_seed(0)
    return InpaintingArchitecture(attention).build().eval()


def image_and_hole(path: Path, part: int) -> tuple[Tensor, Tensor]:
    """The middle of a photograph at the size asked for, and holes on a grid."""
    height, width = HEIGHT // part, WIDTH // part
    color = read_image(path).color
    scale = min(color.shape[2] / height, color.shape[3] / width)
    rows, columns = int(height * scale), int(width * scale)
    color = color[..., :rows, :columns]
    image = torch.nn.functional.interpolate(color, (height, width), mode="bilinear", antialias=True)
    hole = torch.zeros(1, height, width, dtype=torch.bool)
    for number in range(HOLES):
        y, x = height * (1 + 2 * (number // 4)) // 4, width * (1 + 2 * (number % 4)) // 8
        hole[:, y - HOLE // 2 : y + HOLE // 2, x - HOLE // 2 : x + HOLE // 2] = True
    return image, hole


def whole_pass(path: Path, checkpoint: Path | None, part: int) -> dict[str, Any]:
    image, hole = image_and_hole(path, part)
    network = network_of(checkpoint, "psal")
    start = time.perf_counter()
    with torch.no_grad():
        memory, filled = peak_beyond(lambda: network.fill(image, hole))
    assert torch.equal(filled[..., ~hole[0]], image[..., ~hole[0]])
    return {"memory": memory, "seconds": time.perf_counter() - start}


def attention_alone(part: int, channels: int) -> dict[str, Any]:
    height, width = HEIGHT // part // STRIDE, WIDTH // part // STRIDE
    torch.manual_seed(0)
    features = torch.nn.functional.interpolate(
        torch.randn(1, channels, height // 8, width // 8), (height, width), mode="bilinear"
    )
    known = torch.ones(1, height, width, dtype=torch.bool)
    known[:, height // 4 : height // 4 + HOLE // STRIDE, width // 4 : width // 4 + HOLE // STRIDE] = False
    layer = InpaintingArchitecture("psal").build().refinement.attention
    with torch.no_grad():
        small = features[..., :48, :48].contiguous()
        layer(small, small, small, key_mask=known[:, :48, :48])  # compiles
        start = time.perf_counter()
        memory, _ = peak_beyond(lambda: layer(features, features, features, key_mask=known))
    return {"memory": memory, "seconds": time.perf_counter() - start}


def refusal(channels: int) -> str:
    """What the original attention says of features of the largest image."""
    features = torch.zeros(1, channels, HEIGHT // STRIDE, WIDTH // STRIDE)
    layer = InpaintingArchitecture("contextual").build().refinement.attention
    try:
        layer(features, features, features)
    except RuntimeError as error:
        return str(error)
    return "it was not refused"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required="--help" not in sys.argv)
    parser.add_argument("--checkpoint", type=Path, help="of a trained network")
    parser.add_argument("--results", type=Path, help="where inpainting_network_scaling.md and .json go")
    arguments = parser.parse_args()
    photographs = sorted((arguments.data / "highres").glob("*.jpg"))
    if not photographs:
        sys.exit(f"--data: {arguments.data} lacks highres/*.jpg; put them there or give another folder")
    forks = Forks(["inpainting_network_scaling"], {"MALLOC_MMAP_THRESHOLD_": "1000000"})
    channels: int = network_of(arguments.checkpoint, "psal").refinement.get_submodule("pmconv6").out_channels
    rows, results = [], []
    for part in PARTS:
        height, width = HEIGHT // part, WIDTH // part
        whole = forks.call(whole_pass, photographs[0], arguments.checkpoint, part, timeout=3600)
        alone = forks.call(attention_alone, part, channels, timeout=3600)
        grid = height // STRIDE, width // STRIDE
        original, full = (contextual_memory(grid, grid, rate=rate) for rate in (2, 1))
        rows.append(
            [f"{height}x{width}", f"{whole['memory'] / 1e9:.2f}", f"{whole['seconds']:.0f}",
             f"{alone['memory'] / 1e9:.3f}", f"{alone['seconds']:.1f}", f"{original / 1e9:,.0f}", f"{full / 1e9:,.0f}"]
        )  # fmt: skip
        print(rows[-1], flush=True)
        results.append({"height": height, "width": width, "whole": whole, "attention": alone,
                        "contextual": original, "full": full})  # fmt: skip
    said = forks.call(refusal, channels, timeout=600)
    headings = ["pixels", "pass with PSAL: GB", "seconds", "its attention: GB", "seconds",
                "contextual attention: GB", "full attention: GB"]  # fmt: skip
    parts = [
        "# The inpainting network over large images (PSAL, section 4.5)",
        f"One pass over the whole image, no tiles, {HOLES} holes of {HOLE}x{HOLE}. GB: 10^9 bytes beyond the image;"
        " the attentions on the right are computed, not run. Written by "
        "`python benchmarks/inpainting_network_scaling.py --data DIR --results docs/results`.",
        table(headings, rows),
        f"The network's contextual attention, asked for {HEIGHT}x{WIDTH} pixels, says:\n\n> {said}",
        machine_line(),
    ]
    print("\n\n".join(parts))
    if arguments.results is not None:
        write_page(arguments.results, "inpainting_network_scaling", parts, results)


if __name__ == "__main__":
    main()
