"""The operators as `FlopCounterMode` counts them: two operations for each number of a pair, by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from patchattn import PatchAttention, ScramAttention
from patchattn.attention.layer import AttentionLayer
from patchattn.baselines import FullAttention, LinearAttention

QUERY, KEY, VALUE = (2, 4, 6, 5), (1, 4, 4, 7), (2, 2, 4, 7)
QUERIES, KEYS = 2 * 30, 28


def counts(layer: AttentionLayer, device: str = "cpu") -> tuple[int, int]:
    """Forward and backward."""
    images = [torch.ones(size, device=device, requires_grad=True) for size in (QUERY, KEY, VALUE)]
    with FlopCounterMode(display=False) as counter:
        output = layer(*images)
        forward = counter.get_total_flops()
        output.sum().backward()
    return forward, counter.get_total_flops() - forward


@pytest.mark.parametrize(("settings", "searched", "offsets"), [
    ({"method": "exact"}, KEYS, 1),
    ({"method": "exact", "num_heads": 2}, KEYS, 1),
    ({"method": "exact", "patch_size": 3}, KEYS, 9),
    # Three to begin with, and at most 4 steps of 4 neighbors' 3 matches and 3 windows.
    ({"method": "patchmatch", "iterations": 2}, 3 + 2 * (48 + 3), 1),
    ({"method": "repeated", "iterations": 2}, 3 * (1 + 2 * (16 + 3)), 1),
])  # fmt: skip
def test_patch_attention(settings: dict[str, Any], searched: int, offsets: int) -> None:
    at_matches, votes = 2 * QUERIES * 3 * 4 * offsets, 2 * QUERIES * 3 * 2
    layer = PatchAttention(k=3, **({"patch_size": 1} | settings))
    expected = (2 * QUERIES * searched * 4 * offsets + at_matches + votes, 2 * (at_matches + votes))
    assert counts(layer) == expected
    assert counts(layer, "meta") == expected


def test_weighted_sum_and_expansion() -> None:
    layer = ScramAttention(k=1, expand=1, method="exact", weighting=torch.exp, normalization="count")
    each = 2 * QUERIES * 9 * (4 + 2)
    assert counts(layer) == (2 * QUERIES * KEYS * 4 + each, 2 * each)


def test_guided_search_grows_with_the_pixels() -> None:
    def count(side: int) -> int:
        with FlopCounterMode(display=False) as counter:
            image = torch.empty(1, 16, side, side, device="meta")
            PatchAttention(method="guided")(image, image, image)
        return int(counter.get_total_flops())

    assert count(128) == 4 * count(64)


@pytest.mark.parametrize("layer", [FullAttention(patch_size=3), LinearAttention(patch_size=3)])
def test_an_operator_counts_what_its_layer_does(layer: AttentionLayer) -> None:
    forward, backward = counts(layer)
    # A tile is computed once more where autograd cannot see how many there are.
    assert counts(layer, "meta") == (forward, backward + forward)


def test_the_counter_is_not_imported_for_this() -> None:
    code = """
import sys
import torch
import patchattn
assert "torch.utils.flop_counter" not in sys.modules
from torch.utils.flop_counter import flop_registry
assert torch.ops.patchattn.search in flop_registry and torch.ops.patchattn.full_attention_backward in flop_registry
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_counter_that_was_there_before() -> None:
    program = "import torch.utils.flop_counter, patchattn, torch; x = torch.rand(1, 2, 4, 4); "
    program += "c = torch.utils.flop_counter.FlopCounterMode(display=False); c.__enter__(); "
    program += (
        "patchattn.patch_attention(x, x, x, patch_size=3); c.__exit__(None, None, None); print(c.get_total_flops())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 0
