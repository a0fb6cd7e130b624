"""Sample photographs, from scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from patchattn.extras import extra
from patchattn.tasks.colors import to_gray
from patchattn.tasks.images import Image, write_image

__all__ = ["write_sample"]


def write_sample(name: str, folder: Path) -> Path:
    """Write a sample into a folder, and return its path."""
    with extra("demo"):
        import skimage.data
    data: Any = skimage.data
    samples: dict[str, Callable[[], Any]] = {
        "coffee": data.coffee,
        "cat": data.chelsea,
        "astronaut": data.astronaut,
        "rocket": data.rocket,
        "bricks": data.brick,
        "left": lambda: data.stereo_motorcycle()[0],
        "right": lambda: data.stereo_motorcycle()[1],
        "gray-left": lambda: data.stereo_motorcycle()[0],
        "gray-cat": data.chelsea,
        "small-cat": lambda: data.chelsea()[20:220, 90:340],
        "small-astronaut": lambda: data.astronaut()[0:200, 130:330],
    }
    if name not in samples:
        raise ValueError(f"There is no sample {name}.")
    array = samples[name]()
    color = torch.from_numpy(array.copy()).float().div(255).reshape(*array.shape[:2], -1).permute(2, 0, 1)[None]
    path = folder / f"{name}.png"
    write_image(path, Image(to_gray(color) if name.startswith("gray-") else color))
    return path
