"""The images of benchmarks/reconstruction.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from figures import new_figure, plain_logarithmic, show_image, write_figure
from pairs import read
from reconstruction_rows import SIDE, Pair, Store
from torch import Tensor
from torch.nn.functional import avg_pool2d

FIGURE_PAIRS = ("horsejump-high-00020-00010", "bmx-trees-00040-00030")
COLUMNS = {
    "full, stride 10": "full, key stride 10",
    "local, window 50": "local, window 50",
    "linear": "linear",
    "PSAL 3": "PSAL 3",
    "PSAL Aggreg., k = 1": "PSAL Aggreg.",
}
ZOOM = 80
"""Side of the square that is enlarged."""
TICKS = [digit * 10.0**power for power in range(-5, 0) for digit in (1, 2, 5)]


def figure(pairs: Sequence[Pair], store: Store, path: Path) -> None:
    """Target, reference and what each layer made of them, each above its square enlarged."""
    drawn = new_figure(2.4 * (2 + len(COLUMNS)), 5.1 * len(pairs))
    panels = drawn.subplots(2 * len(pairs), 2 + len(COLUMNS), squeeze=False)
    for number, pair in enumerate(pairs):
        target, reference = pair.read(SIDE)
        images = {"target": target, "reference": reference}
        images |= {title: read(store.image_of(pair, row)) for row, title in COLUMNS.items()}
        y, x = moved(target, reference)
        for column, (title, color) in enumerate(images.items()):
            above, below = panels[2 * number][column], panels[2 * number + 1][column]
            show_image(above, _pixels(color), title)
            _square(above, y, x)
            show_image(below, _pixels(color[..., y : y + ZOOM, x : x + ZOOM]), "")
    write_figure(drawn, path)


def _pixels(color: Tensor) -> Any:
    return color[0].movedim(0, -1).clamp(0, 1).numpy()


def _square(axes: Any, y: int, x: int) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((x, y), ZOOM, ZOOM, fill=False, edgecolor="red", linewidth=1.5))


def moved(target: Tensor, reference: Tensor) -> tuple[int, int]:
    """Top left corner of the square with most difference between the images times detail of the target."""
    gradient = target.diff(dim=2)[..., :-1].square() + target.diff(dim=3)[..., :-1, :].square()
    detail, difference = (x.mean(1, keepdim=True) for x in (gradient, (target - reference).square()))
    both = avg_pool2d(detail, ZOOM, stride=4) * avg_pool2d(difference[..., :-1, :-1], ZOOM, stride=4)
    row, column = divmod(int(torch.argmax(both)), both.shape[-1])
    return 4 * row, 4 * column


def scatter(errors: Mapping[str, Mapping[str, float]], strided: str, path: Path) -> None:
    """Each pair's error of our layers against that of full attention with a stride."""
    drawn = new_figure(7, 6)
    axes = drawn.subplots()
    looks = {
        "PSAL 3": ("tab:blue", "o"),
        "PSAL Aggreg., k = 1": ("tab:orange", "^"),
        "PSAL Aggreg., k = 3": ("tab:green", "s"),
    }
    for row, (color, marker) in looks.items():
        names = [name for name in errors[row] if name in errors[strided]]
        x, y = ([errors[of][name] for name in names] for of in (strided, row))
        axes.scatter(x, y, color=color, marker=marker, s=24, alpha=0.8, label=row)
    axes.set_xscale("log")
    axes.set_yscale("log")
    low = min(axes.get_xlim()[0], axes.get_ylim()[0])
    high = max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], color="black", linewidth=1, label="equal")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        plain_logarithmic(axis, [tick for tick in TICKS if low <= tick <= high])
    axes.set_xlabel(f"mean squared error, {strided}")
    axes.set_ylabel("mean squared error, ours")
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(frameon=False)
    write_figure(drawn, path)
