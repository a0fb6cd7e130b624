"""The first filling of a hole, from its border inwards."""

import torch

from patchattn.tasks.completion import begin
from patchattn.tasks.onion_peel import peeled
from patchattn.tasks.pyramid import image_pyramid


def completed(image: torch.Tensor, hole: torch.Tensor, patch_size: int = 7, seed: int = 0) -> torch.Tensor:
    level = image_pyramid(image, hole, torch.zeros_like(hole), patch_size, 1)[0]
    return peeled(begin(level, patch_size), seed).image


def rectangle(rows: slice, columns: slice, size: tuple[int, int] = (60, 80)) -> torch.Tensor:
    hole = torch.zeros(1, 1, *size, dtype=torch.bool)
    hole[..., rows, columns] = True
    return hole


def test_stripes_go_on_across_the_hole() -> None:
    row, column = torch.meshgrid(torch.arange(60), torch.arange(80), indexing="ij")
    stripes = ((row + column) // 5 % 2).float()[None, None]
    hole = rectangle(slice(20, 40), slice(30, 50))
    missed = (completed(stripes, hole) - stripes)[hole].abs().mean()
    assert missed < 0.1, "a membrane misses it by 0.5"


def test_an_edge_that_enters_on_both_sides_meets() -> None:
    image = torch.zeros(1, 1, 60, 80)
    image[..., 33:, :] = 1
    hole = rectangle(slice(22, 44), slice(30, 52))
    assert (completed(image, hole).round() == image).all()


def test_known_pixels_stay_and_seeds_repeat() -> None:
    image = torch.rand(1, 3, 61, 79, generator=torch.Generator().manual_seed(1))
    hole = rectangle(slice(0, 15), slice(60, 79), (61, 79)) | rectangle(slice(40, 48), slice(9, 20), (61, 79))
    first, again = (completed(image, hole, patch_size=5) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.where(hole, 0, first), torch.where(hole, 0, image))
    assert first[hole.expand_as(first)].isfinite().all()
