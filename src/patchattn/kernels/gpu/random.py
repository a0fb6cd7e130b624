"""Random numbers by counting: a hash of (seed, iteration, head, query, draw), the same in every backend."""

from __future__ import annotations

import triton
import triton.language as tl

from patchattn.kernels.parameters import RANDOM_INCREMENT

__all__ = ["draw", "mix", "own_stream", "stream", "word"]

INCREMENT = tl.constexpr(RANDOM_INCREMENT)


def stream(seed: int, iteration: int) -> int:
    """The word from which those of all heads in one iteration come, as a signed number of 32 bits."""
    state = _mix_number((seed & 0xFFFFFFFF) ^ 0x9E3779B9)
    for part in ((seed >> 32) & 0xFFFFFFFF, iteration & 0xFFFFFFFF):
        state = _mix_number(state ^ part)
    return state - (state >> 31 << 32)


def _mix_number(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ (x >> 16)


@triton.jit
def mix(x):
    """Scramble words of type uint32 one to one."""
    x = x ^ (x >> 16)
    x = tl.mul(x, 0x7FEB352D, sanitize_overflow=False)
    x = x ^ (x >> 15)
    x = tl.mul(x, 0x846CA68B, sanitize_overflow=False)
    return x ^ (x >> 16)


@triton.jit
def own_stream(stream, head, queries):
    """The words from which the draws of each query come."""
    of_head = mix((stream ^ tl.zeros_like(queries)).to(tl.uint32, bitcast=True) ^ head.to(tl.uint32))
    return mix(of_head ^ queries.to(tl.uint32))


@triton.jit
def word(own, n):
    """The n-th random word of each query, uint32."""
    n = (own ^ own) + n.to(tl.uint32)
    return mix(tl.add(own, tl.mul(n, INCREMENT, sanitize_overflow=False), sanitize_overflow=False))


@triton.jit
def draw(own, n, low, high):
    """The n-th random number of each query: uniform in [low, high], both included."""
    return low + tl.umulhi(word(own, n), (high - low + 1).to(tl.uint32)).to(tl.int32)
