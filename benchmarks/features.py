"""Which features of PyTorch work with which layer: each is tried, and what comes out is compared.

A cell says "yes" if the layer computed the right values in that way, "refused" if the package says in a sentence that
it does not do it, and "no" otherwise; the sentences stand below. Compilation is to one graph, forward and backward, by
Dynamo and AOTAutograd without generated code; export is with sizes that change; autocast is bfloat16 against float64;
vmap has the same random numbers for all; DDP and FSDP2 are two processes with gloo. Images are 8x8; derivatives by
differences are taken on 4x4.

    python benchmarks/features.py [--layers PatchAttention ...] [--features vmap ...] [--results FOLDER]
"""

from __future__ import annotations

import argparse
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from feature_checks import CHANNELS, CHECKS
from feature_processes import WRAPPERS, run_distributed
from machine import table
from page import machine_line, write_page
from torch import nn

import patchattn as pa

PACKAGE = str(Path(pa.__file__).parent)
FEATURES = (*CHECKS, *WRAPPERS)


class Masked(nn.Module):
    """`MaskedPatchAttention` with a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = pa.MaskedPatchAttention(k=3, patch_size=3)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(key[:, 0], dtype=torch.bool)
        mask[..., 1:3, 1:3] = False
        found: torch.Tensor = self.layer(query, key, value, key_mask=mask)
        return found


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "PatchAttention": partial(pa.PatchAttention, k=3, patch_size=3),
    "PatchAttention, aggregate": partial(pa.PatchAttention, k=3, patch_size=3, aggregate=True),
    "MaskedPatchAttention": Masked,
    "MultiheadPatchAttention2d": partial(pa.MultiheadPatchAttention2d, CHANNELS, 2),
    "ScramAttention": partial(pa.ScramAttention, k=3),
    "ScramAttention, expand": partial(pa.ScramAttention, k=2, expand=1),
    "ScramAttention, snis": partial(pa.ScramAttention, k=2, estimator="snis", samples=8),
    "ScramAttention, mh": partial(pa.ScramAttention, k=2, estimator="mh", samples=8),
    "FullAttention": partial(pa.baselines.FullAttention, patch_size=3),
    "LocalAttention": partial(pa.baselines.LocalAttention, window=5, patch_size=3),
    "SparseAttention": partial(pa.baselines.SparseAttention, patch_size=3),
    "LinearAttention": partial(pa.baselines.LinearAttention, patch_size=3),
    "PerformerAttention": partial(pa.baselines.PerformerAttention, patch_size=3),
    "ReformerAttention": partial(pa.baselines.ReformerAttention, patch_size=3, bucket_size=8),
    "ContextualAttention": pa.ContextualAttention,
    "CrossScaleAttention": pa.CrossScaleAttention,
    "CrossScalePatchAttention": partial(pa.CrossScalePatchAttention, k=4),
}
"""Every layer of the package, as it is typically made."""


def sentence(error: Exception) -> str:
    """The kind of a failure and the first sentence of its message."""
    frames = traceback.extract_tb(error.__traceback__)
    # An error of PyTorch ends there too, but no line of the package raises it.
    refused = frames and frames[-1].filename.startswith(PACKAGE) and (frames[-1].line or "").startswith("raise ")
    kind = "refused" if refused else "no"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{kind}: {lines[0].split('. ')[0].replace('|', ' ')[:300]}"


def cell(layer: str, feature: str) -> str:
    """Try one feature of one layer in this process: "yes", or "refused: ..." or "no: ..."."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            CHECKS[feature](LAYERS[layer]())
    except Exception as error:
        return sentence(error)
    return "yes"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=list(FEATURES))
    parser.add_argument("--results", type=Path, help="where features.md and .json go")
    arguments = parser.parse_args()
    found: dict[tuple[str, str], str] = {}
    for layer in arguments.layers:
        for feature in (name for name in arguments.features if name in CHECKS):
            found[layer, feature] = cell(layer, feature)
            print(f"{layer}: {feature}: {found[layer, feature]}", flush=True)
    if set(WRAPPERS) & set(arguments.features):
        outcomes = run_distributed({name: LAYERS[name] for name in arguments.layers}, sentence)
        found |= {at: "yes" if outcome is None else outcome for at, outcome in outcomes.items()}
        print("\n".join(f"{layer}: {feature}: {found[layer, feature]}" for layer, feature in outcomes), flush=True)
    rows = [
        [layer, *(found[layer, feature].split(":")[0] for feature in arguments.features)] for layer in arguments.layers
    ]
    shown = table(["", *arguments.features], rows)
    print(shown)
    if arguments.results is None:
        return
    others = [
        f"- {layer}, {feature}: {found[layer, feature]}" for layer, feature in found if found[layer, feature] != "yes"
    ]
    parts = [
        "# Features of PyTorch",
        f"Written by `python benchmarks/features.py --results docs/results`. {machine_line()}",
        (__doc__ or "").split("\n\n    python", maxsplit=1)[0],
        shown,
        *(["What does not work, and why:", "\n".join(others)] if others else []),
    ]
    results: list[dict[str, Any]] = [
        {"layer": layer, "feature": feature, "outcome": outcome} for (layer, feature), outcome in found.items()
    ]
    write_page(arguments.results, "features", parts, results)


if __name__ == "__main__":
    main()
