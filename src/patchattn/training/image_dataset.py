"""A data set of the images in a folder, read when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from patchattn.checks import check_choice
from patchattn.tasks.codecs import FORMATS
from patchattn.tasks.folders import ON_ERROR
from patchattn.tasks.images import read_image

__all__ = ["ImageDataset", "find_images"]


@dataclass(frozen=True)
class ImageDataset:
    """Images of any sizes; there may be more than memory holds."""

    folder: Path
    names: tuple[str, ...]
    """Paths inside the folder, in their order."""
    on_error: str = "stop"
    warn: Callable[[str], None] = print

    def __len__(self) -> int:
        return len(self.names)

    def square(self, generator: np.random.Generator, size: int) -> Tensor:
        """Cut a random square out of a random image.

        An image smaller than that is enlarged first, until its shorter side fits.

        Returns:
            RGB in [0, 1], `(3, size, size)`.

        Raises:
            ValueError: an image cannot be read and `on_error` is `"stop"`, or none can be.
        """
        color = self._read(int(generator.integers(len(self))))
        height, width = color.shape[2:]
        if min(height, width) < size:
            factor = size / min(height, width)
            height, width = (max(size, ceil(n * factor)) for n in (height, width))
            color = functional.interpolate(color, (height, width), mode="bilinear", antialias=True).clamp(0, 1)
        top, left = int(generator.integers(height - size + 1)), int(generator.integers(width - size + 1))
        return color[0, :, top : top + size, left : left + size]

    def _read(self, number: int) -> Tensor:
        """An image, or the first one after it that can be read."""
        for at in range(number, number + len(self)):
            try:
                image = read_image(self.folder / self.names[at % len(self)], argument="data")
            except ValueError as error:
                if self.on_error == "stop":
                    raise ValueError(f"{error} (With on_error 'skip' training goes on without it.)") from error
                self.warn(f"left out: {error}")
                continue
            return image.color.expand(-1, 3, -1, -1).to(torch.float32)
        raise ValueError(f"data: no image in {self.folder} can be read.")


def find_images(folder: Path, *, on_error: str = "stop", warn: Callable[[str], None] = print) -> ImageDataset:
    """Find the images in a folder and the folders in it.

    Args:
        folder: where to look.
        on_error: what a file that cannot be read does when it is drawn: `"stop"` the training, or `"skip"`: the next
            one takes its place.
        warn: called with a message for every file that is skipped.

    Raises:
        ValueError: there is no such folder, or no image in it.
    """
    check_choice("on_error", on_error, ON_ERROR)
    if not folder.is_dir():
        raise ValueError(f"data: there is no folder {folder}; expected one that holds images.")
    found = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in FORMATS and path.is_file()
    )
    if not found:
        raise ValueError(f"data: there is no image in {folder}; looked for {', '.join(FORMATS)}.")
    return ImageDataset(folder, tuple(found), on_error, warn)
