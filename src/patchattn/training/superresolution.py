"""Super-resolution, learned from images and the same images made small (section 4.6 of PSAL)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from patchattn.checks import check_count
from patchattn.networks.architectures import SuperResolutionArchitecture
from patchattn.networks.weights import network_bytes
from patchattn.training.image_dataset import ImageDataset
from patchattn.training.loop import LossTask

__all__ = ["SuperResolutionTask", "draw_squares", "made_small"]

Squares = Float[Tensor, "items 3 size size"]


@dataclass(frozen=True)
class SuperResolutionTask(LossTask):
    """A network that enlarges squares of images that were made small; the loss is the mean absolute error of RGB in
    [0, 1].

    Raises:
        ValueError: a number is out of range.
    """

    images: ImageDataset
    architecture: SuperResolutionArchitecture
    size: int = 96
    """Side of the squares before they are made small; what the scale does not divide is left out."""
    batch_size: int = 16
    seed: int = 0
    """Seed of the first weights and of the squares."""
    alternate: nn.Module | None = None
    """A layer without parameters that every second step attends with in the cross-scale branch: the weights then suit
    this one and the architecture's own alike."""

    def __post_init__(self) -> None:
        check_count("size", self.size, 8)
        check_count("batch_size", self.batch_size, 1)
        check_count("seed", self.seed, 0)

    def describe(self) -> dict[str, Any]:
        names = "\n".join(self.images.names)
        return {
            "network": asdict(self.architecture),
            "pictures": len(self.images),
            # Millions of names would be most of the checkpoint.
            "names": hashlib.sha256(names.encode()).hexdigest(),
            "size": self.size,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "alternate": None if self.alternate is None else repr(self.alternate),
        }

    def build(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.architecture.build()

    def loss(self, network: nn.Module, items: range, device: torch.device) -> Tensor:
        truth, small = self._draw(items, device)
        second = items.start // self.batch_size % 2 == 1
        return functional.l1_loss(network(small, cross_scale=self.alternate if second else None), truth)

    def sample(self, network: Callable[..., Tensor], device: torch.device) -> Tensor:
        """Return the first item enlarged by bicubic interpolation and by the network, and its truth, side by side."""
        truth, small = self._draw(range(1), device)
        bicubic = functional.interpolate(small, truth.shape[2:], mode="bicubic", antialias=True)
        return torch.cat([bicubic, network(small), truth], 3)

    def content(self, network: nn.Module) -> bytes:
        return network_bytes(network, self.architecture)

    def _draw(self, items: range, device: torch.device) -> tuple[Squares, Squares]:
        scale = self.architecture.scale
        truth = draw_squares(self.images, items, seed=self.seed, size=self.size // scale * scale)
        return truth.to(device), made_small(truth, scale).to(device)


def draw_squares(images: ImageDataset, numbers: Iterable[int], *, seed: int, size: int) -> Squares:
    """Draw squares of images, each turned or mirrored; what is drawn depends on `seed` and an item's number alone.

    Args:
        images: where to draw from.
        numbers: of the items.
        seed: of the draws.
        size: of the squares.

    Raises:
        ValueError: an image cannot be read, see `ImageDataset`.
    """
    squares = []
    for number in numbers:
        # Not a torch.Generator, which looks at 32 bits of its seed.
        generator = np.random.default_rng((seed, number))
        square = images.square(generator, size).rot90(int(generator.integers(4)), (1, 2))
        squares.append(square.flip(2) if generator.integers(2) else square)
    return torch.stack(squares)


def made_small(images: Float[Tensor, "items 3 height width"], scale: int) -> Float[Tensor, "items 3 h w"]:
    """Make images in [0, 1] `scale` times smaller as the literature does: bicubic (a = -0.5, antialiased, as MATLAB's
    `imresize`), rounded to 8 bits.

    Example:
        >>> made_small(torch.full((1, 3, 8, 8), 0.5), 2).unique()
        tensor([0.5020])
    """
    size = [n // scale for n in images.shape[2:]]
    small = functional.interpolate(images, size, mode="bicubic", antialias=True)
    return (small.clamp(0, 1) * 255).round() / 255
