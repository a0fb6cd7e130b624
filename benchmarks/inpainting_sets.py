"""Images and holes of benchmarks/inpainting.py, set by set."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

EVERY = 4
"""Of the photographs of bsds500, in the order of their names, every fourth from the first is set apart for this
benchmark; the others are for tuning."""


@dataclass(frozen=True)
class Case:
    """One image with its hole."""

    dataset: str
    number: str
    image: NDArray[np.uint8]
    """RGB (height, width, 3); in the hole the truth, if it is known."""
    hole: NDArray[np.bool_]
    has_truth: bool

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.number}"


def places2(data: Path) -> Iterator[Case]:
    return _masked(data, "places2", "jpg", has_truth=True)


def removal(data: Path) -> Iterator[Case]:
    return _masked(data, "removal", "png", has_truth=False)


def bsds500(data: Path) -> Iterator[Case]:
    """The masks of places2 in turn, rotated, the second ten mirrored before and the third ten flipped."""
    masks = _files(data, "places2/masks/*.png")
    for n, path in enumerate(_files(data, "bsds500/*.jpg")[::EVERY]):
        image, mask = Image.open(path).convert("RGB"), Image.open(masks[n % len(masks)]).convert("L")
        mask = (mask, ImageOps.mirror(mask), ImageOps.flip(mask))[n // len(masks) % 3]
        mask = mask.transpose(Image.Transpose.ROTATE_90).resize(image.size, Image.Resampling.NEAREST)
        yield Case("bsds500", f"{n:02d}", np.array(image), np.asarray(mask) > 127, True)


SETS: dict[str, tuple[Callable[[Path], Iterator[Case]], str]] = {
    "places2": (places2, "photographs of 512x512 with holes of the shape of things"),
    "bsds500": (bsds500, "photographs of 481x321 that nothing was tuned on, with holes of the shape of things"),
    "removal": (removal, "photographs with a thing to remove; what is behind it is not known"),
}
"""Cases of each set, and what they are."""


def load(data: Path, dataset: str) -> list[Case]:
    """Return all cases of a set; end the program with what is missing if there are none."""
    return list(SETS[dataset][0](data))


def _masked(data: Path, dataset: str, extension: str, *, has_truth: bool) -> Iterator[Case]:
    for path in _files(data, f"{dataset}/images/*.{extension}"):
        mask = Image.open(data / dataset / "masks" / f"{path.stem}.png").convert("L")
        image = np.array(Image.open(path).convert("RGB"))
        yield Case(dataset, path.stem, image, np.asarray(mask) > 127, has_truth)


def _files(data: Path, pattern: str) -> list[Path]:
    found = sorted(data.glob(pattern))
    if not found:
        sys.exit(f"--data: {data} lacks {pattern}; put them there or give another folder")
    return found
