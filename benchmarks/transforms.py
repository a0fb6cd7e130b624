"""Matches under rotation, scale and mirroring: planted copies found again, and their cost.

A disk of a photograph is pasted elsewhere, rotated by -45 to 45 degrees, 0.7 to 1.4 times as large, every second one
mirrored, and the whole is written as JPEG of quality 90. Queries are the patches inside the disk, keys all of the image
outside of it; the disk is 0.8 to 1.25 times as bright, which the cosine does not see. A pixel is found if its match
lies within a pixel of where it came from, and is rotated to within 5 degrees. Translations alone stand beside.

    python benchmarks/transforms.py --images DIR --results out
"""

from __future__ import annotations

import argparse
import io
import random
import time
from dataclasses import dataclass
from math import cos, radians, sin
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from patchattn import match
from patchattn.field import MatchField

ROTATIONS = tuple(range(-48, 49, 8))
SCALES = (0.7, 0.79, 0.89, 1.0, 1.12, 1.26, 1.41)
RADIUS, CROP = 24, (160, 200)


@dataclass(frozen=True)
class Planted:
    """A photograph with a copy in it."""

    image: Tensor
    disk: Tensor
    """Bool `(height, width)`: the copy."""
    source: Tensor
    """Row and column that each pixel of the copy came from, `(2, height, width)`."""
    angle: float
    """Of the source beside the copy, counterclockwise."""
    scale: float
    mirror: bool
    gain: float


def read(path: Path) -> Tensor:
    """A crop from the middle of a photograph, `(1, 3, height, width)` in [0, 1]."""
    with Image.open(path) as file:
        pixels = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    height, width = pixels.shape[2:]
    top, left = (height - CROP[0]) // 2, (width - CROP[1]) // 2
    return pixels[..., top : top + CROP[0], left : left + CROP[1]]


def plant(image: Tensor, draw: random.Random, mirror: bool) -> Planted:
    """Paste a rotated, scaled disk of the right half of an image into its left half."""
    angle, scale, gain = draw.uniform(-45, 45), draw.uniform(0.7, 1.4), draw.uniform(0.8, 1.25)
    height, width = image.shape[2:]
    reach = RADIUS * scale + 2
    target = draw.uniform(RADIUS + 2, height - RADIUS - 3), draw.uniform(RADIUS + 2, width / 2 - RADIUS - 3)
    source = (
        draw.uniform(reach, height - 1 - reach),
        draw.uniform(max(width / 2, target[1] + RADIUS + reach + 1), width - 1 - reach),
    )
    c, s = scale * cos(radians(angle)), scale * sin(radians(angle))
    y, x = torch.arange(height)[:, None] - target[0], torch.arange(width) - target[1]
    disk = y.square() + x.square() <= RADIUS**2
    sign = -1 if mirror else 1
    at = torch.stack([source[0] + c * y - sign * s * x, source[1] + s * y + sign * c * x])
    grid = torch.stack([2 * at[1] / (width - 1) - 1, 2 * at[0] / (height - 1) - 1], -1)[None]
    pasted = grid_sample(image, grid, mode="bicubic", align_corners=True).mul(gain).clamp(0, 1)
    return Planted(as_jpeg(torch.where(disk, pasted, image)), disk, at, angle, scale, mirror, gain)


def as_jpeg(image: Tensor, quality: int = 90) -> Tensor:
    """The image after a trip through a file."""
    pixels = (image[0].permute(1, 2, 0) * 255).round().byte().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1)[None].float() / 255


def eroded(disk: Tensor, patch: int) -> Tensor:
    """The pixels whose patch lies inside."""
    outside = (~disk)[None, None].float()
    return torch.nn.functional.max_pool2d(outside, patch, 1, patch // 2)[0, 0] == 0


def found(planted: Planted, patch: int, **search: Any) -> tuple[Tensor, Tensor, float]:
    """Whether the pixels inside are found: their position, and with it their angle and mirroring; and the seconds."""
    began = time.perf_counter()
    field = match(
        planted.image, planted.image, patch_size=patch, query_mask=eroded(planted.disk, patch)[None],
        key_mask=~planted.disk[None], **search,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    inner = eroded(planted.disk, patch)
    near = (positions(field) - planted.source).square().sum(0).sqrt()[inner] <= 1
    angle, mirror = torch.zeros(()), torch.tensor(False)
    if field.transform is not None:
        angle, mirror = field.transform.angle[0, 0, 0][inner], field.transform.mirror[0, 0, 0][inner]
    turned = ((angle - planted.angle + 180) % 360 - 180).abs() <= 5
    return near, near & turned & (mirror == planted.mirror), seconds


def positions(field: MatchField) -> Tensor:
    """The exact positions of the best matches."""
    return (field.coordinates().double() if field.transform is None else field.transform.coordinates())[0, 0, 0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--patches", type=int, nargs="+", default=[15])
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    paths = sorted(options.images.glob("*.jpg"))
    rows: list[dict[str, Any]] = []
    for n in range(options.cases):
        draw = random.Random(n)
        planted = plant(read(paths[n % len(paths)]), draw, mirror=n % 2 == 1)
        for patch in options.patches:
            for name, search in (
                ("translations", {"similarity": "cosine"}),
                ("transforms, l2", {"rotations": ROTATIONS, "scales": SCALES, "mirror": True}),
                ("transforms", {"rotations": ROTATIONS, "scales": SCALES, "mirror": True, "similarity": "cosine"}),
            ):
                near, right, seconds = found(planted, patch, **search)
                rows.append({
                    "case": n, "patch": patch, "search": name, "angle": planted.angle, "scale": planted.scale,
                    "mirror": planted.mirror, "gain": planted.gain,
                    "near": near.float().mean().item(), "right": right.float().mean().item(),
                    "pixels": near.numel(), "seconds": seconds,
                })  # fmt: skip
                print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
