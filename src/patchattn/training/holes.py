"""Images with square holes, drawn at random; item n of a seed is the same whenever and wherever it is drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from patchattn.checks import check_count
from patchattn.training.image_dataset import ImageDataset

__all__ = ["HoleSizes", "Holes", "draw_holes"]


@dataclass(frozen=True)
class HoleSizes:
    """Squares of `image` pixels, each with a square of `hole` pixels in which its hole lies.

    Raises:
        ValueError: a number is out of range.
    """

    image: int = 256
    hole: int = 128
    variation: int = 32
    """By how much a hole may be smaller than its square, in each dimension; half of it is left on either side."""

    def __post_init__(self) -> None:
        check_count("size", self.image, 8)
        check_count("hole_size", self.hole, 1)
        check_count("hole_variation", self.variation, 0)
        if self.hole > self.image:
            raise ValueError(f"hole_size: got {self.hole}; expected at most the size of the images, {self.image}.")
        if self.variation >= self.hole:
            raise ValueError(f"hole_variation: got {self.variation}; expected less than hole_size, {self.hole}.")


@dataclass(frozen=True)
class Holes:
    """Images, their holes, and the corners of the squares around the holes."""

    truth: Float[Tensor, "items 3 size size"]
    """RGB in [-1, 1]."""
    hole: Bool[Tensor, "items size size"]
    corners: tuple[tuple[int, int], ...]
    side: int
    """Side of the squares around the holes."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Holes:
        return Holes(self.truth.to(device, dtype), self.hole.to(device), self.corners, self.side)

    def around(self, images: Tensor) -> Tensor:
        """Return the squares around the holes: `(items, channels, side, side)`."""
        return torch.stack(
            [
                image[:, top : top + self.side, left : left + self.side]
                for image, (top, left) in zip(images, self.corners, strict=True)
            ]
        )


def draw_holes(images: ImageDataset, numbers: Iterable[int], *, seed: int, sizes: HoleSizes) -> Holes:
    """Draw images and holes; what is drawn depends on `seed` and an item's number alone.

    Args:
        images: where to draw from.
        numbers: of the items.
        seed: of the draws.
        sizes: of images and holes.

    Raises:
        ValueError: an image cannot be read, see `ImageDataset`.
    """
    truths, holes, corners = [], [], []
    for number in numbers:
        # Not a torch.Generator, which looks at 32 bits of its seed.
        generator = np.random.default_rng((seed, number))
        truths.append(images.square(generator, sizes.image) * 2 - 1)
        top, left = (int(generator.integers(sizes.image - sizes.hole + 1)) for _ in range(2))
        above, before = (int(generator.integers(sizes.variation // 2 + 1)) for _ in range(2))
        hole = torch.zeros(sizes.image, sizes.image, dtype=torch.bool)
        hole[top + above : top + sizes.hole - above, left + before : left + sizes.hole - before] = True
        holes.append(hole)
        corners.append((top, left))
    return Holes(torch.stack(truths), torch.stack(holes), tuple(corners), sizes.hole)
