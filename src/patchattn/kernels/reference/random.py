"""Counter-based randomness: a number is a hash of (seed, iteration, head, position, draw), the same on every device.

Words of 32 bits are held in int64, as PyTorch has no complete unsigned arithmetic.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from patchattn.kernels.parameters import RANDOM_INCREMENT

__all__ = ["Draws", "mix", "stream", "uniform"]

WORD = 0xFFFFFFFF

Word = TypeVar("Word", int, Tensor)


def mix(x: Word) -> Word:
    """Scramble a word, or a tensor of words, one to one."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & WORD
    x = x ^ (x >> 15)
    # The factor minus 2^32 is the same modulo 2^32 and keeps the product within 64 signed bits.
    x = (x * (0x846CA68B - 2**32)) & WORD
    return x ^ (x >> 16)


def stream(seed: int, iteration: int, head: int) -> int:
    """Return the word that starts the random numbers of one head in one iteration."""
    h = mix((seed & WORD) ^ RANDOM_INCREMENT)
    h = mix(h ^ ((seed >> 32) & WORD))
    h = mix(h ^ iteration)
    return mix(h ^ head)


def uniform(word: Tensor, low: Tensor | int, high: Tensor | int) -> Tensor:
    """Map words to integers from `low` to `high`, both included."""
    return low + ((word * (high - low + 1)) >> 32)


class Draws:
    """The random words of one iteration: `draws(n)` is the n-th of every head and position.

    The batch takes no part, so that an image gets the same field in whatever batch it comes.
    """

    def __init__(self, seed: int, iteration: int, num_heads: int, positions: Tensor) -> None:
        starts = torch.tensor([stream(seed, iteration, head) for head in range(num_heads)], device=positions.device)
        self.words = mix(starts[:, None] ^ positions)

    def __call__(self, n: int) -> Tensor:
        """Return int64 `(heads, positions)`, from 0 to 2^32 - 1."""
        return mix((self.words + ((n * RANDOM_INCREMENT) & WORD)) & WORD)
