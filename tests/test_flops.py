"""benchmarks/flops.py against numbers counted by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from patchattn import PatchAttention, ScramAttention
from patchattn.baselines import FullAttention
from tests.benchmark_modules import benchmark_modules


@pytest.fixture(scope="module")
def flops() -> Iterator[Callable[..., float]]:
    """The function, whose module finds others beside it."""
    with benchmark_modules("flops") as modules:
        yield modules["flops"].flops


QUERY, KEY, VALUE = torch.rand(1, 4, 6, 5), torch.rand(1, 4, 4, 7), torch.rand(1, 2, 4, 7)


def test_full_attention(flops: Callable[..., float]) -> None:
    # 30 x 28 pairs: products of 3 x 3 x 4 numbers, the one that stands for the squared norm and two that mark patches
    # with NaN, then of 2 values.
    assert flops(FullAttention(patch_size=3), QUERY, KEY, VALUE) == 2 * 30 * 28 * (39 + 2)


@pytest.mark.parametrize(("settings", "expected"), [
    # Of each pair 4 differences, squares and additions; then 2 values times 3 weights.
    ({"patch_size": 1, "method": "exact"}, 30 * 28 * 3 * 4 + 2 * 30 * 3 * 2),
    # Patches of 9 pixels; nine times as many votes.
    ({"patch_size": 3, "method": "exact", "aggregate": True}, 30 * 28 * 3 * 36 + 2 * 30 * 27 * 2),
    # Three to begin with, and at most 4 steps of 4 neighbors' 3 matches and 3 windows (of 7, 3 and 1 keys).
    ({"patch_size": 1, "method": "patchmatch", "iterations": 2}, 30 * (3 + 2 * (48 + 3)) * 12 + 2 * 30 * 3 * 2),
])  # fmt: skip
def test_patch_attention(flops: Callable[..., float], settings: dict[str, Any], expected: float) -> None:
    assert flops(PatchAttention(**settings), QUERY, KEY, VALUE) == expected


def test_guided_search_grows_with_the_pixels(flops: Callable[..., float]) -> None:
    layer = PatchAttention(method="guided")
    small, large = (flops(layer, *([torch.rand(1, 16, side, side)] * 3)) for side in (64, 128))
    assert 4 < large / small < 4.5


def test_what_is_not_counted_is_refused(flops: Callable[..., float]) -> None:
    with pytest.raises(ValueError, match=r"^layer: got ScramAttention.*matrix products"):
        flops(ScramAttention(), QUERY, KEY, VALUE)
    with pytest.raises(ValueError, match="without limits"):
        flops(PatchAttention(is_causal=True), QUERY, QUERY, QUERY)
    with pytest.raises(ValueError, match="'repeated'"):
        flops(PatchAttention(method="repeated"), QUERY, KEY, VALUE)
