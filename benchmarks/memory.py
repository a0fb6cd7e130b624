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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from machine import save, table
from process import MIB, in_fresh_process, peak_beyond
from torch import Tensor
from torch.nn.functional import interpolate

from patchattn import patch_attention

CHANNELS, PATCH, K = 16, 7, 3
PAPER_GB = {("k=3", 512): 0.18, ("aggregate", 512): 2.95}


def attend(layer: Callable[..., Tensor], inputs: Sequence[Tensor]) -> int:
    """Run a layer, with backward if the inputs want gradients; return the bytes of the result and the gradients."""
    output = layer(*inputs)
    outputs = output.nbytes
    if output.requires_grad:
        # A gradient that takes no memory of its own.
        output.backward(torch.ones((), dtype=output.dtype).expand_as(output))
        outputs += sum(tensor.grad.nbytes for tensor in inputs if tensor.grad is not None)
    return outputs


def measure_here(size: int, aggregate: bool, backward: bool, method: str) -> dict[str, float]:
    """Run the layer in this process and return its peak in MiB."""

    def run(n: int) -> tuple[int, int]:
        # Three smooth colours in 16 channels, as pictures are: the search takes another way through white noise.
        colours = [interpolate(torch.rand(1, 3, n // 8, n // 8), (n, n), mode="bicubic") for _ in range(3)]
        mixing = torch.rand(CHANNELS, 3)
        inputs = [torch.einsum("oc,bchw->bohw", mixing, x).contiguous().requires_grad_(backward) for x in colours]
        del colours
        layer = partial(patch_attention, k=K, patch_size=PATCH, aggregate=aggregate, method=method)
        return peak_beyond(lambda: attend(layer, inputs))

    run(64)
    peak, outputs = run(size)
    return {"peak_mib": (peak - outputs) / MIB, "outputs_mib": outputs / MIB}


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
