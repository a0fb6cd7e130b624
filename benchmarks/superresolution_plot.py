"""The images of benchmarks/superresolution.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from figures import new_figure, write_figure
from torch import Tensor
from torch.nn import functional

SIDE = 120
"""Of the squares that are shown, in pixels of the enlarged image."""


def draw(made: Mapping[str, Mapping[str, Tensor]], path: Path) -> None:
    """A row for each image: the square in which bicubic interpolation is farthest from the truth, by every method."""
    columns = list(next(iter(made.values())))
    figure = new_figure(len(columns) * 2.6, len(made) * 2.75, layout=None)
    axes = figure.subplots(len(made), len(columns), squeeze=False)
    for line, (name, images) in zip(axes, made.items(), strict=True):
        part = worst(images["bicubic"], images["truth"])
        for place, title in zip(line, columns, strict=True):
            shown = images[title][0].clamp(0, 1).movedim(0, 2).numpy()[part]
            place.imshow(shown, interpolation="nearest")
            place.set_title(f"{name}: {title}" if title == columns[0] else title, fontsize=7, pad=2)
            place.set_axis_off()
    figure.subplots_adjust(left=0.003, right=0.997, bottom=0.002, top=0.985, wspace=0.02, hspace=0.09)
    write_figure(figure, path, pil_kwargs={"quality": 85})


def worst(found: Tensor, truth: Tensor) -> tuple[slice, slice]:
    error = (found - truth).square().mean(1, keepdim=True)
    means = functional.avg_pool2d(error, SIDE, 8)[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return slice(8 * row, 8 * row + SIDE), slice(8 * column, 8 * column + SIDE)
