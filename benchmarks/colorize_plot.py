"""The images of benchmarks/colorize.py."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from figures import new_figure, write_figure
from torch import Tensor

WIDTH = 400
"""Pixels of one image."""


def draw(rows: list[dict[str, Tensor]], path: Path) -> None:
    """Put titled images of one size into rows, and write them to a file."""
    height, width = next(iter(rows[0].values())).shape[2:]
    size = (round(WIDTH * height / width), WIDTH)
    columns = len(rows[0])
    figure = new_figure(columns * WIDTH / 100, len(rows) * (size[0] + 26) / 100, layout=None)
    for axes, (title, image) in zip(
        figure.subplots(len(rows), columns).flat, [item for row in rows for item in row.items()], strict=True
    ):
        small = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
        axes.imshow(small[0].permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="antialiased")
        axes.set_title(title, fontsize=10, pad=3)
        axes.set_axis_off()
    figure.subplots_adjust(left=0.002, right=0.998, bottom=0.002, top=0.95, wspace=0.01, hspace=0.12)
    write_figure(figure, path, pil_kwargs={"quality": 88})
