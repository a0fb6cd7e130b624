"""Guided colorization, learned from pairs of frames (section 4.3 of PSAL)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchattn.checks import check_choice, check_count
from patchattn.networks.architectures import ColorizationArchitecture
from patchattn.networks.attention_layers import named_attention
from patchattn.networks.weights import network_bytes
from patchattn.tasks.colors import to_gray
from patchattn.training.color_augmentation import augment_colors
from patchattn.training.exploration import RandomMatches
from patchattn.training.frames import FrameSequence
from patchattn.training.loop import LossTask
from patchattn.training.pairs import draw_pairs

__all__ = ["ColorizationTask", "colorization_errors", "mean_error"]

STARTS = ("random", "aligned")


@dataclass(frozen=True)
class ColorizationTask(LossTask):
    """A network that colors one frame, turned gray, from another frame of its sequence; the loss is the mean squared
    error of RGB in [0, 1].

    Raises:
        ValueError: a number is out of range.
    """

    sequences: Sequence[FrameSequence]
    architecture: ColorizationArchitecture = field(default_factory=ColorizationArchitecture)
    crop: int | None = None
    """Side of the squares that are cut from the frames; None: whole frames, as in the paper."""
    batch_size: int = 1
    seed: int = 0
    """Seed of the first weights and of the pairs."""
    start: str = "random"
    """The first weights: `"random"`, as in the paper, or `"aligned"`, see `ColorizationNetwork.align`."""
    recolor: bool = False
    """Change the colors of each pair at random, see `training.color_augmentation`."""
    explore: int = 0
    """Number of first steps that attend to keys drawn at random, see `training.exploration`."""

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size, 1)
        check_choice("start", self.start, STARTS)
        check_count("explore", self.explore, 0)
        if self.explore:
            self._random_matches()  # what is wrong with them, before the work
        side = self.sequences[0].frames.shape[2]
        if self.crop is not None and not 8 <= self.crop <= side:
            raise ValueError(f"crop: got {self.crop}; expected 8 to the size of the frames, {side}.")

    def _random_matches(self) -> RandomMatches:
        return RandomMatches(named_attention(self.architecture.attention, self.architecture.settings))

    def describe(self) -> dict[str, Any]:
        return {
            "network": asdict(self.architecture),
            "sequences": {sequence.name: list(sequence.frames.shape) for sequence in self.sequences},
            "crop": self.crop,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "start": self.start,
            "recolor": self.recolor,
            "explore": self.explore,
        }

    def build(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = self.architecture.build()
        if self.start == "aligned":
            network.align()
        return network

    def loss(self, network: nn.Module, items: range, device: torch.device) -> Tensor:
        target, reference = draw_pairs(self.sequences, items, seed=self.seed, crop=self.crop)
        if self.recolor:
            target, reference = augment_colors(target, reference, list(items))
        target, reference = target.to(device), reference.to(device)
        exploring = items.start < self.explore * self.batch_size
        attention = self._random_matches().attention(items, seed=self.seed) if exploring else None
        return functional.mse_loss(network(to_gray(target), reference, attention), target)

    def sample(self, network: Callable[..., Tensor], device: torch.device) -> Tensor:
        """Return gray target, reference, result and truth, side by side, of the ends of the first sequence."""
        frames = self.sequences[0].frames
        target, reference = (part.to(device).float() / 255 for part in (frames[-1:], frames[:1]))
        gray = to_gray(target)
        return torch.cat([gray.expand(-1, 3, -1, -1), reference, network(gray, reference), target], 3)

    def content(self, network: nn.Module) -> bytes:
        return network_bytes(network, self.architecture)


def colorization_errors(network: nn.Module, sequences: Sequence[FrameSequence]) -> Iterator[tuple[str, int, float]]:
    """Color every frame from the one before it in its sequence.

    Yields:
        (sequence, number of the frame, mean squared error of RGB in [0, 1]), the network's result clipped to [0, 1].
    """
    for sequence in sequences:
        for at in range(1, len(sequence)):
            reference, target = (sequence.frames[n : n + 1].float() / 255 for n in (at - 1, at))
            with torch.no_grad():
                result = network(to_gray(target), reference).clamp(0, 1)
            yield sequence.name, at, float(functional.mse_loss(result, target))


def mean_error(network: nn.Module, sequences: Sequence[FrameSequence]) -> float:
    """Return the mean of `colorization_errors` over all frames of all sequences."""
    errors = [error for _, _, error in colorization_errors(network, sequences)]
    return sum(errors) / len(errors)
