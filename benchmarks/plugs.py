"""Self-attention of a 128x128 latent (8 heads of 40 channels): time and memory of PyTorch's own and of matches.

Each row is a process of its own, see memory.py. PyTorch's fused kernel on the CPU takes memory linear in the
tokens; the matrix of all products (what it computes where no fused kernel serves a call) is the row "all products".

    python benchmarks/plugs.py [--side 128] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from layer_cost import cost_of
from machine import save, table
from process import MIB, in_fresh_process
from torch import Tensor
from torch.nn import functional

from patchattn.plugs import TokenAttention

HEADS, CHANNELS = 8, 320
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def all_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(3) @ value


ATTENTION: dict[str, Attend] = {
    "scaled_dot_product_attention": functional.scaled_dot_product_attention,
    "all products": all_products,
    "k = 16": TokenAttention(k=16),
    "k = 64": TokenAttention(k=64),
}


def measure_here(name: str, side: int, backward: bool) -> dict[str, float]:
    """Run the layer in this process and return its peak and processor time."""

    def layer(*images: Tensor) -> Tensor:
        tokens = (image.unflatten(1, (HEADS, -1)).flatten(3).transpose(2, 3).contiguous() for image in images)
        return ATTENTION[name](*tokens)

    cost = cost_of(layer, side, CHANNELS, backward)
    return {"peak_mib": cost.memory / MIB, "seconds": cost.seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        name, side, backward = arguments.here
        print(json.dumps(measure_here(name, int(side), backward == "1")))
        return
    results, rows = [], []
    for backward in (False, True):
        for name in ATTENTION:
            command = [sys.executable, __file__, "--here", name, str(arguments.side), str(int(backward))]
            way = "forward + backward" if backward else "forward"
            try:
                cost = in_fresh_process(command)
            except subprocess.CalledProcessError as error:
                rows.append([name, way, f"ended by signal {-error.returncode}, as when memory runs out", ""])
                continue
            results.append({"attention": name, "side": arguments.side, "backward": backward, **cost})
            rows.append([name, way, f"{cost['seconds']:.1f}", f"{cost['peak_mib']:.0f}"])
    print(table(["attention", "", "processor seconds", "MiB beyond inputs and outputs"], rows))
    if arguments.json:
        save(arguments.json, results)


if __name__ == "__main__":
    main()
