"""The images of benchmarks/inpainting.py and inpainting_highres.py, and what is cut out around a hole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import new_figure, write_figure

MARGIN, SIDE = 40, 260
"""Pixels around a hole, and the least side that is shown."""
HOLE = (255, 0, 255)


def draw(made: Mapping[str, Mapping[str, Any]], shown: Sequence[str], path: Path, *, around: bool = True) -> None:
    """A row for each image, cut out `around` its hole or whole: the hole, what the methods made, and the truth."""
    columns = ["hole", *shown, "truth"]
    height = len(made) * 2.7
    figure = new_figure(len(columns) * 2.6, height, dpi=120, layout=None)
    axes = figure.subplots(len(made), len(columns), squeeze=False)
    for line, (name, images) in zip(axes, made.items(), strict=True):
        hole, truth = images["hole"], images["truth"]
        part = around_hole(hole) if around else (...,)
        marked = np.where(hole[..., None], np.uint8(HOLE), truth)
        for place, title in zip(line, columns, strict=True):
            place.imshow((marked if title == "hole" else images[title])[part])
            place.set_title(f"{name}: {title}" if title == "hole" else title, fontsize=7, pad=2)
            place.set_axis_off()
    figure.subplots_adjust(left=0.003, right=0.997, bottom=0.002, top=1 - 0.3 / height, wspace=0.02, hspace=0.09)
    write_figure(figure, path, pil_kwargs={"quality": 88})


def around_hole(hole: Any) -> tuple[slice, slice]:
    """A square about the hole, inside the image."""
    places = np.nonzero(hole)
    side = max(SIDE, *(int(at.max() - at.min()) + 2 * MARGIN for at in places))
    parts = []
    for at, extent in zip(places, hole.shape, strict=True):
        length = min(side, extent)
        start = int(np.clip((at.min() + at.max() - length) // 2, 0, extent - length))
        parts.append(slice(start, start + length))
    return parts[0], parts[1]
