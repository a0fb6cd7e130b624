"""The last steps of completion: every pixel of the hole is a copy, with few seams, at finer and finer levels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchattn.field import MatchField
from patchattn.tasks.completion import Completion
from patchattn.tasks.pyramid import PyramidLevel, dilated
from patchattn.tasks.seams import seam_correction, values_at
from patchattn.tasks.source_labels import label_sources, refine_sources

__all__ = ["Copies", "copies_of", "enlarged_copies"]


@dataclass(frozen=True)
class Copies:
    """An image whose hole is filled with copies."""

    image: Tensor
    source: MatchField
    """Position that each pixel of the hole is copied from."""


def copies_of(completion: Completion, patch_size: int) -> Copies:
    """Fill the hole of a completed level anew, with copies that resemble it and have few seams."""
    level = completion.scale
    known = torch.cat([level.image, level.texture], 1)
    target = torch.cat([completion.image, completion.texture], 1)
    source = label_sources(completion.field(), known, target, level.hole, _sources(level, patch_size), level.guide)
    return _copied(level, source, completion.image)


def enlarged_copies(coarse: Copies, level: PyramidLevel, patch_size: int) -> Copies:
    """Copy the same from the next finer level."""
    known = torch.cat([level.image, level.texture], 1)
    source = refine_sources(coarse.source, known, level.hole, _sources(level, patch_size), level.guide)
    height, width = level.size
    below = coarse.image.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :height, :width]
    return _copied(level, source, below)


def _copied(level: PyramidLevel, source: MatchField, otherwise: Tensor) -> Copies:
    """Copy, and close the steps that light leaves at seams; where there is no source it is as it was."""
    color = values_at(level.image, *source.coordinates()[0, 0, 0])
    color = color + seam_correction(source, level.image, color, level.image, level.hole)
    color = torch.where(source.index[:, 0] >= 0, color, otherwise)
    return Copies(torch.where(level.hole, color, level.image), source)


def _sources(level: PyramidLevel, patch_size: int) -> Tensor:
    """The pixels of the patches that may be copied."""
    return dilated(level.sources, patch_size // 2)
