"""Corrections of copies at their seams."""

import pytest
import torch

from patchattn.field import MatchField
from patchattn.tasks.neighbors import neighbors_at
from patchattn.tasks.seams import MAX_BORDER_STEP, MAX_SEAM_STEP, seam_correction, values_at

SIZE = (24, 40)
HOLE = torch.zeros(1, 1, *SIZE, dtype=torch.bool)
HOLE[..., 8:16, 6:14] = True


def copied_from(right: int, hole: torch.Tensor = HOLE) -> MatchField:
    """Each pixel of the hole from so many columns beside it."""
    position = torch.arange(hole.numel()).view(1, 1, 1, *SIZE) + right
    index = torch.where(hole[None], position, -1).int()
    return MatchField(index, torch.zeros(index.shape), SIZE)


def correction(image: torch.Tensor, source: MatchField, hole: torch.Tensor = HOLE) -> torch.Tensor:
    color = values_at(image, *source.coordinates()[0, 0, 0])
    return seam_correction(source, image, color, torch.where(hole, 0, image), hole)[hole]


def ramp(step: float) -> torch.Tensor:
    """Texture that repeats every 20 columns, on two brightnesses that differ by `step`."""
    texture = torch.rand(1, 1, SIZE[0], 20, generator=torch.Generator().manual_seed(0)) / 10
    return torch.cat([texture, texture + step], 3)


def test_copies_from_a_darker_place_become_as_bright_as_here() -> None:
    found = correction(ramp(-0.1), copied_from(20))
    assert torch.allclose(found, torch.full_like(found, 0.1), atol=1e-6)


def test_steps_that_are_no_light_are_left() -> None:
    assert (correction(ramp(-(MAX_BORDER_STEP + 0.02)), copied_from(20)) == 0).all()


def two_copies(step: float) -> torch.Tensor:
    """Corrections of the pixels to the left and right of where two copies meet whose colors differ by `step`."""
    image = torch.zeros(1, 1, *SIZE)
    image[..., 20:] = step
    column = torch.arange(SIZE[1])
    here, there = copied_from(0).index, copied_from(20).index
    index = torch.where(column < 10, here, there)
    # What is known beside the hole agrees with either copy, so that only the seam between them is seen.
    source = MatchField(index, torch.zeros(index.shape), SIZE)
    color = values_at(image, *source.coordinates()[0, 0, 0])
    known = color.clone()
    known[..., :10], known[..., 10:] = 0, step
    return seam_correction(source, image, color, known, HOLE)[0, 0, 12, 9:11]


@pytest.mark.parametrize("step", [0.1, 0.2])
def test_two_copies_meet_in_the_middle(step: float) -> None:
    assert torch.allclose(two_copies(step), torch.tensor([step / 2, -step / 2]))


def test_copies_that_show_different_things_are_left() -> None:
    assert (two_copies(MAX_SEAM_STEP + 0.02) == 0).all()


def test_a_perfect_copy_is_not_corrected() -> None:
    assert (correction(ramp(0), copied_from(20)) == 0).all()


def test_neighbors_and_what_is_beside_the_image() -> None:
    plane = torch.arange(6.0).view(2, 3)
    assert neighbors_at(plane, 0, 1, -1).tolist() == [[1, 2, -1], [4, 5, -1]]
    assert neighbors_at(plane, -1, 0, -1).tolist() == [[-1, -1, -1], [0, 1, 2]]
