"""Peak memory of one patch attention layer, forward and with backward, beyond its inputs and outputs.

Each row is a process of its own: it runs the layer once on a small image (imports, compiled kernels), then allocates
the inputs of the measured size and notes its resident memory; reported is how far the peak lies above that, less the
outputs (the result; with backward also the three gradients). Linux only: the peak is read from /proc/self/status and
reset through /proc/self/clear_refs.

    python benchmarks/memory.py [--sizes 512] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path

from layer_cost import cost_of
from machine import save, table
from process import MIB, in_fresh_process

from patchattn import patch_attention

CHANNELS, PATCH, K = 16, 7, 3
PAPER_GB = {("k=3", 512): 0.18, ("aggregate", 512): 2.95}


def measure_here(size: int, aggregate: bool, backward: bool, method: str) -> dict[str, float]:
    """Run the layer in this process and return its peak in MiB."""
    layer = partial(patch_attention, k=K, patch_size=PATCH, aggregate=aggregate, method=method)
    cost = cost_of(layer, size, CHANNELS, backward)
    return {"peak_mib": cost.memory / MIB, "outputs_mib": cost.outputs / MIB}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--here", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        size, aggregate, backward, method = arguments.here
        print(json.dumps(measure_here(int(size), aggregate == "1", backward == "1", method)))
        return
    results, rows = [], []
    for size in arguments.sizes:
        for aggregate in (False, True):
            for backward in (False, True):
                command = [sys.executable, __file__, "--here", str(size), str(int(aggregate)), str(int(backward))]
                layer = "aggregate" if aggregate else "k=3"
                result = {"size": size, "layer": layer, "backward": backward, **in_fresh_process([*command, "auto"])}
                results.append(result)
                paper = PAPER_GB.get((layer, size))
                rows.append(
                    [
                        f"{size}x{size}",
                        layer,
                        "forward + backward" if backward else "forward",
                        f"{result['peak_mib']:.0f}",
                        f"{paper * 1000:.0f} MB" if paper and not backward else "",
                    ]
                )
    print(f"{CHANNELS} channels, patches {PATCH}x{PATCH}, k = {K}; MiB beyond inputs and outputs")
    print(table(["size", "layer", "pass", "peak MiB", "the paper (GPU)"], rows))
    save(arguments.json, results)


if __name__ == "__main__":
    main()
