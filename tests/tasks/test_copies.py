"""Copies by graph cuts: what they are copied from, and how they are carried on."""

from __future__ import annotations

from math import inf

import torch

from patchattn.field import MatchField
from patchattn.tasks.source_labels import label_sources, refine_sources

SIZE = 24, 32


def stripes() -> torch.Tensor:
    """An image that repeats after 8 columns."""
    columns = torch.rand(1, 3, 1, 8, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 1, 4)
    return columns.expand(1, 3, *SIZE).clone()


def hole() -> torch.Tensor:
    mask = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
    mask[..., 8:14, 12:18] = True
    return mask


def field_of(*columns: int) -> MatchField:
    """Of each row of the hole, matches so many columns away."""
    rows, at = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    step = torch.tensor(columns)[rows % len(columns)]
    index = torch.where(hole()[0, 0], rows * SIZE[1] + at + step, -1).int()[None, None, None]
    return MatchField(index, torch.where(index >= 0, 0.0, -inf), SIZE)


def test_the_offset_without_a_seam_is_chosen() -> None:
    image = stripes()
    known = torch.where(hole(), 0, image)
    source = label_sources(field_of(-7, 8, 9, 8), known, torch.full_like(image, 0.5), hole(), ~hole())
    assert torch.equal(source.index[0, 0] >= 0, hole()[0])
    at = source.index[0, 0, 0][hole()[0, 0]].long()
    assert torch.equal(known.flatten(2)[0][:, at], image[0][:, hole()[0, 0]])


def test_what_may_not_be_copied_is_not() -> None:
    image = stripes()
    known, sources = torch.where(hole(), 0, image), ~hole()
    sources[..., 20:26] = False  # the pixels 8 columns to the right
    source = label_sources(field_of(8, -8), known, image, hole(), sources)
    assert (source.offsets()[0, 0, 0, 1][hole()[0, 0]] == -8).all()


def test_offsets_are_doubled_and_stay_inside() -> None:
    image = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    fine = hole().repeat_interleave(2, 2).repeat_interleave(2, 3)
    fine[..., 15, 30] = True
    coarse = label_sources(field_of(8), stripes(), stripes(), hole(), ~hole())
    source = refine_sources(coarse, torch.where(fine, 0, image), fine, ~fine)
    assert (source.offsets()[0, 0, 0, 1][fine[0, 0] & (source.index[0, 0, 0] >= 0)] == 16).all()
    assert (source.index[0, 0, 0] >= 0)[fine[0, 0]].float().mean() > 0.9


def test_the_guide_decides_within_what_looks_alike() -> None:
    """Both sides have the same stripes; the guide tells them apart, and where the hole has which, to the pixel."""
    image, columns = stripes(), torch.arange(SIZE[1])
    known = torch.where(hole(), 0, image)
    guide = (columns >= 15).float().expand(1, 1, *SIZE)
    source = label_sources(field_of(8, -8, 8), known, image, hole(), ~hole(), guide)
    assert ((source.offsets()[0, 0, 0, 1] > 0) == (columns >= 15))[hole()[0, 0]].all()
    # Seams of the coarse level are where its pixels are, those of the fine one where its guide is.
    guide = (torch.arange(2 * SIZE[1]) >= 31).float().expand(1, 1, 2 * SIZE[0], 2 * SIZE[1])
    image, fine = (t.repeat_interleave(2, 2).repeat_interleave(2, 3) for t in (image, hole()))
    refined = refine_sources(source, torch.where(fine, 0, image), fine, ~fine, guide)
    assert ((refined.offsets()[0, 0, 0, 1] > 0) == (torch.arange(2 * SIZE[1]) >= 31))[fine[0, 0]].all()
