"""Random numbers by counting: a hash of (seed, iteration, head, query, draw), the same in every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchattn.kernels.cpu.compiler import inlined
from patchattn.kernels.parameters import RANDOM_INCREMENT

__all__ = ["WORDS", "draw", "mix", "stream", "streams_of"]

MASK = 0xFFFFFFFF
WORDS = 2**32
"""Number of random words: a draw from all of them has 32 bits."""


def stream(seed: int, iteration: int, head: int) -> np.uint32:
    """The key of the random numbers of one iteration of one head."""
    state = _mix_python((seed & MASK) ^ RANDOM_INCREMENT)
    for part in ((seed >> 32) & MASK, iteration & MASK, head & MASK):
        state = _mix_python(state ^ part)
    return np.uint32(state)


def streams_of(seed: int, iteration: int, heads: int) -> NDArray[np.uint32]:
    """Keys of the random numbers of all heads, a row of one for each."""
    return np.array([[stream(seed, iteration, head)] for head in range(heads)], np.uint32)


def _mix_python(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ (x >> 16)


@inlined
def mix(x: Any) -> Any:
    x = np.uint32(x)
    x ^= x >> np.uint32(16)
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x ^= x >> np.uint32(15)
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


@inlined
def draw(key: Any, n: int, low: int, high: int) -> int:
    """The n-th random number of a query: uniform in [low, high]."""
    u = mix(np.uint32(key + np.uint32(np.uint32(n) * np.uint32(RANDOM_INCREMENT))))
    return low + np.int64((np.uint64(u) * np.uint64(high - low + 1)) >> np.uint64(32))
