"""Floating-point operations of one forward call of an attention layer; a multiplication and an addition are two.

Layers made of PyTorch's matrix products are run, and their products counted by PyTorch (`FlopCounterMode`; what is done
number by number, such as exponentials, is not counted). Patch attention calls operators of its own: its operations are
those of gpu_formulas.py, whose counts for the GPU's kernels hold for the CPU's too. Of guided search and PatchMatch the
data decide how much is compared: counted is the most that can be (guided search comes within 2 % of it in its scans,
docs/results/gpu_roofline.md), 3 operations for each number of two patches. The 32 directions that patches are projected
to are taken as given.

    python benchmarks/flops.py [--sizes 64 128] [--results FOLDER]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from math import ceil, log2, prod
from pathlib import Path

import torch
from gpu_formulas import FORMULAS, Facts
from layer_cost import smooth_features
from machine import table
from page import machine_line, write_page
from table1_layers import CHANNELS, ENTRIES, PATCH
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from patchattn import PatchAttention, ScramAttention
from patchattn.kernels.parameters import LEAF_SIZE, PROPAGATION_DISTANCES, SPLIT_SAMPLE, ranked_length
from patchattn.matching.define import define_problem
from patchattn.ops.methods import resolve_method

SMALL = 32
"""Side of the part of an image that a layer is run on beforehand."""
STEPS = len(PROPAGATION_DISTANCES)
"""Distances at which PatchMatch asks neighbors in one iteration."""


def flops(layer: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> float:
    """Operations of `layer(query, key, value)` without gradients.

    Raises:
        ValueError: a layer whose operations are not counted.
    """
    if isinstance(layer, PatchAttention):
        return float(query.shape[0] * layer.num_heads * _patch_attention(layer, query, key, value))
    if isinstance(layer, ScramAttention):
        raise ValueError(
            f"layer: got {layer}; operations are counted of PatchAttention and of layers of matrix products."
        )
    with torch.no_grad():
        # What a layer makes once, as Performer its directions, belongs to no call.
        layer(*(image[(..., *[slice(0, SMALL)] * (query.dim() - 2))] for image in (query, key, value)))
        with FlopCounterMode(display=False) as counter:
            layer(query, key, value)
    return float(counter.get_total_flops())


def _patch_attention(layer: PatchAttention, query: Tensor, key: Tensor, value: Tensor) -> int:
    """Of one item and one head."""
    settings, dims = layer.settings, query.dim() - 2
    patch, separation = settings["patch_size"], settings["min_separation"]
    if not isinstance(patch, int) or settings["is_causal"] or separation != 0 or settings["max_offset"] is not None:
        raise ValueError(
            f"layer: got {layer}; operations are counted for patches of one size, and matches without limits."
        )
    key_size = tuple(key.shape[2:])
    problem = define_problem(query, key, layer, None, None)
    chosen, iterations = resolve_method(problem, tuple(query.shape[2:]), key_size)
    method = chosen.name
    heads = settings["num_heads"]
    queries = Facts(tuple(query.shape[2:]), patch, query.shape[1] // heads, settings["k"])
    keys = replace(queries, size=key_size)
    numbers = prod(value.shape[1:]) // prod(key_size) // heads
    window = patch if settings["aggregate"] else 1
    votes = queries.n * queries.k * window**dims
    answer = FORMULAS["attend.attend"](replace(queries, window=window, votes=votes, channels=numbers)).operations
    if method == "exact":
        return 3 * queries.n * keys.n * queries.offsets * queries.channels + answer
    if method == "guided":
        return _guided(queries, keys, iterations) + answer
    if method == "patchmatch":
        asked = STEPS * 2 * dims * queries.k + max(key_size).bit_length()
        return _compared(queries, queries.k + iterations * asked) + answer
    raise ValueError(f"layer: got method {method!r}; operations are counted of exact, guided and patchmatch.")


def _compared(queries: Facts, each: int) -> int:
    """Whole patches, so many for each query."""
    return FORMULAS["similarity.similarity"](replace(queries, candidates=queries.n * each)).operations


def _guided(queries: Facts, keys: Facts, iterations: int) -> int:
    length = ranked_length(queries.k)
    total = sum(FORMULAS["projection.project"](facts).operations for facts in (queries, keys))
    for level in range(ceil(log2(keys.n / LEAF_SIZE))):
        looked_at = min(keys.n, SPLIT_SAMPLE * 2**level)
        total += FORMULAS["tree.widest"](replace(keys, level=level, samples_of_ranges=looked_at)).operations
    total += FORMULAS["guided_seed.seed"](replace(queries, leaves=queries.n)).operations
    # A scan follows all matches of the neighbors on one side: one in each dimension.
    scanned = replace(queries, leaves=queries.n * length * len(queries.size))
    total += iterations * FORMULAS["guided_scan.scan"](scanned).operations
    return total + _compared(queries, length)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--results", type=Path, help="where flops.md and .json go")
    arguments = parser.parse_args()
    results = [
        {"layer": name, "side": side, "flops": flops(entry.make(), *smooth_features(side, CHANNELS))}
        for name, entry in ENTRIES.items()
        for side in arguments.sizes
    ]
    rows = [
        [name, *(f"{result['flops'] / 1e9:.3g}" for result in results if result["layer"] == name)] for name in ENTRIES
    ]
    shown = table(["GFLOP", *(f"{side}x{side}" for side in arguments.sizes)], rows)
    print(shown)
    if arguments.results is None:
        return
    how = (__doc__ or "").split("\n\n    python", maxsplit=1)[0]
    parts = [
        "# Operations of attention layers",
        f"Written by `python benchmarks/flops.py --results docs/results`. {machine_line()}",
        how,
        f"One forward call, {CHANNELS} channels, patches {PATCH}x{PATCH}.",
        shown,
    ]
    write_page(arguments.results, "flops", parts, results)


if __name__ == "__main__":
    main()
