"""Pairs of frames, drawn at random; item n of a seed is the same whenever and wherever it is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from patchattn.training.frames import FrameSequence

__all__ = ["draw_pairs"]


def draw_pairs(
    sequences: Sequence[FrameSequence], numbers: Iterable[int], *, seed: int, crop: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw targets and references, two different frames of one sequence each.

    What is drawn depends on `seed` and the item's number alone, so a run that is resumed, or spread over more
    processes, sees the same pairs.

    Args:
        sequences: where to draw from; each frame of all is a target as often.
        numbers: of the items.
        seed: of the draws.
        crop: side of the square that is cut from both, at the same place; None: whole frames.

    Returns:
        Targets and references, (items, 3, height, width) in [0, 1].

    Example:
        >>> scene = FrameSequence("scene", torch.randint(256, (5, 3, 16, 16), dtype=torch.uint8))
        >>> target, reference = draw_pairs([scene], range(4), seed=0, crop=8)
        >>> target.shape
        torch.Size([4, 3, 8, 8])
    """
    pairs = [_pair(sequences, number, seed, crop) for number in numbers]
    target, reference = (torch.stack(side).float() / 255 for side in zip(*pairs, strict=True))
    return target, reference


def _pair(sequences: Sequence[FrameSequence], number: int, seed: int, crop: int | None) -> tuple[Tensor, Tensor]:
    # Not a torch.Generator, which looks at 32 bits of its seed.
    generator = np.random.default_rng((seed, number))

    def below(limit: int) -> int:
        return int(generator.integers(limit))

    target = below(sum(map(len, sequences)))
    for sequence in sequences:
        if target < len(sequence):
            break
        target -= len(sequence)
    # One of the others.
    reference = (target + 1 + below(len(sequence) - 1)) % len(sequence)
    height, width = sequence.frames.shape[2:]
    if crop is None:
        return sequence.frames[target], sequence.frames[reference]
    top, left = below(height - crop + 1), below(width - crop + 1)
    window = (..., slice(top, top + crop), slice(left, left + crop))
    return sequence.frames[target][window], sequence.frames[reference][window]
