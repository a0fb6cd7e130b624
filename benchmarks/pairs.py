"""What the benchmarks of the search share: images and features to search, timed searches, and their costs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import seconds
from numpy.typing import NDArray
from torch import Tensor

from patchattn import MatchField, match
from patchattn.tasks.images import read_image

PATCH, K = 7, 3
SAMPLE = 4000
SEQUENCES, PAIRS_OF_SEQUENCE, PHOTOGRAPHS = 6, 2, 4

ORACLE = "oracle/frames512_p7_k3_l2.npz"
FRAMES = ("frames512/target.png", "frames512/reference.png")


def check_data(data: Path, sections: Iterable[str]) -> None:
    """Stop the program where files are missing that these sections of the report read."""
    missing: list[str] = []
    chosen = set(sections)
    if chosen & {"frames", "channels", "peers", "noise", "noisy", "long", "crossover"}:
        missing += [name for name in FRAMES if not (data / name).is_file()]
    if "frames" in chosen and not (data / ORACLE).is_file():
        missing.append(ORACLE)
    if "davis" in chosen and len(_usable_sequences(data)) < SEQUENCES:
        missing.append(f"davis/*/*.jpg ({SEQUENCES} sequences of at least {2 * PAIRS_OF_SEQUENCE} frames)")
    if "large" in chosen and not list(data.glob("highres/*.jpg")):
        missing.append("highres/*.jpg (a photograph)")
    if "tokens" in chosen and len(list(data.glob("bsds500/*.jpg"))) < PHOTOGRAPHS:
        missing.append(f"bsds500/*.jpg ({PHOTOGRAPHS} photographs)")
    if missing:
        sys.exit(
            f"--data: {data} lacks {', '.join(missing)}; put them there, give another folder, "
            "or leave their sections out (--only)"
        )


def read(path: Path, size: int | None = None) -> Tensor:
    """An image as (1, 3, height, width), resized to `size` x `size` if one is given."""
    color = read_image(path).color
    color = color.expand(-1, 3, -1, -1)
    return color if size is None else resized(color, size)


def resized(image: Tensor, size: int, mode: str = "bilinear") -> Tensor:
    """The image at `size` x `size`; at its own size, as it is."""
    return F.interpolate(image, size=(size, size), mode=mode, antialias=True).clamp(0, 1)


def frames(data: Path, size: int = 512) -> tuple[Tensor, Tensor]:
    """Two frames of a video: the standard pair."""
    target, reference = (read(data / name, size) for name in FRAMES)
    return target, reference


def _usable_sequences(data: Path) -> list[list[Path]]:
    folders = sorted(path for path in data.glob("davis/*") if path.is_dir())
    sequences = [sorted(folder.glob("*.jpg")) for folder in folders]
    return [files for files in sequences if len(files) >= 2 * PAIRS_OF_SEQUENCE]


def davis_pairs(data: Path, size: int) -> list[tuple[str, Tensor, Tensor]]:
    """Pairs of frames, ten frames apart, of the first sequences: (name, later frame, earlier frame)."""
    pairs = []
    for files in _usable_sequences(data)[:SEQUENCES]:
        for n in range(PAIRS_OF_SEQUENCE):
            key, query = files[2 * n : 2 * n + 2]
            pairs.append((f"{key.parent.name} {query.stem}, {key.stem}", read(query, size), read(key, size)))
    return pairs


def large_pair(data: Path, size: int) -> tuple[Tensor, Tensor]:
    """Two overlapping crops of the largest photograph, one a little darker, both resized to `size` x `size`."""
    photograph = max((read(path) for path in sorted(data.glob("highres/*.jpg"))), key=lambda image: image.numel())
    height, width = photograph.shape[2:]
    side = min(height, width) * 9 // 10
    key = photograph[:, :, :side, :side]
    query = 0.95 * photograph[:, :, height - side : height, width // 10 : width // 10 + side]
    return resized(query, size, "bicubic"), resized(key, size, "bicubic")


def standardized(features: Tensor) -> Tensor:
    """Each channel with mean 0 and standard deviation 1."""
    deviation, mean = torch.std_mean(features, dim=(2, 3), keepdim=True)
    return (features - mean) / deviation.clamp(min=1e-12)


def _convolve(features: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.pad(features, (1,) * 4, mode="reflect"), weight)


def convolved(image: Tensor, channels: int = 16) -> Tensor:
    """A fixed random 3x3 convolution to 16 channels, or another number."""
    weight = torch.randn(channels, 3, 3, 3, generator=torch.Generator().manual_seed(0)) / 27**0.5
    return _convolve(image, weight)


def tokens(image: Tensor) -> Tensor:
    """A fixed random network of three 3x3 convolutions, 64 channels, standardized: what attention looks at."""
    generator = torch.Generator().manual_seed(0)
    features = image
    for n, (inputs, outputs) in enumerate([(3, 32), (32, 64), (64, 64)]):
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator) * (2 / (9 * inputs)) ** 0.5
        features = _convolve(features.relu() if n else features, weight)
    return standardized(features)


def timed(query: Tensor, key: Tensor, runs: int, **search: Any) -> tuple[MatchField, dict[str, float]]:
    """The matches, and the median and spread of `runs` searches."""
    fields: list[MatchField] = []

    def run() -> None:
        fields[:] = [match(query, key, **search)]

    time = seconds(run, runs)
    return fields[0], time


def interior_cost(field: MatchField, patch: int) -> NDArray[np.float64]:
    """Mean costs of the best, second-best, ... match where the whole patch lies inside the image."""
    radius = patch // 2
    height, width = field.query_shape
    inside = field.similarity[0, 0, :, radius : height - radius, radius : width - radius]
    cost: NDArray[np.float64] = -inside.double().mean((1, 2)).numpy()
    return cost


@dataclass(frozen=True)
class Sample:
    """Some queries whose whole patch lies inside the image, with the mean costs of their exact matches."""

    mask: Tensor
    exact: NDArray[np.float64]

    def over_exact(self, field: MatchField) -> NDArray[np.float64]:
        """Mean costs of the matches of these queries over those of the exact ones."""
        return _costs_at(self.mask, field) / self.exact


def _costs_at(mask: Tensor, field: MatchField) -> NDArray[np.float64]:
    cost: NDArray[np.float64] = -field.similarity[0, 0][:, mask[0]].double().mean(1).numpy()
    return cost


def sample_of(query: Tensor, key: Tensor, patch: int = PATCH, most: int = SAMPLE) -> Sample:
    """Search exactly for so many random queries (all there are of a smaller image)."""
    height, width = query.shape[2:]
    radius = patch // 2
    inside = np.arange(height * width).reshape(height, width)[radius : height - radius, radius : width - radius].ravel()
    chosen = np.random.default_rng(0).choice(inside, min(most, inside.size), replace=False)
    mask = torch.zeros(height * width, dtype=torch.bool)
    mask[torch.from_numpy(chosen)] = True
    mask = mask.view(1, height, width)
    field = match(query, key, k=K, patch_size=patch, method="exact", query_mask=mask)
    return Sample(mask, _costs_at(mask, field))
