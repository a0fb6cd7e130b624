"""Figures of the benchmarks: made, written, and their parts that several have."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def check_matplotlib() -> None:
    """Raise what names the remedy, before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise RuntimeError('matplotlib is not installed; install it with: pip install "patchattn[bench]"') from error


def new_figure(width: float, height: float, dpi: int = 100, layout: str | None = "constrained") -> Any:
    """A figure of so many inches, `dpi` pixels each."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=dpi, layout=layout)


def write_figure(figure: Any, path: Path, **options: Any) -> None:
    """Save it, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, **options)
    print(f"wrote {path}", end="\n\n", flush=True)


def plain_logarithmic(axis: Any, ticks: list[float] | None = None) -> None:
    """Label a logarithmic axis with plain numbers, at these ticks if any are given."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if ticks is not None:
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())


def show_image(axes: Any, image: Any, title: str, **options: Any) -> Any:
    """An image without ticks."""
    shown = axes.imshow(image, interpolation="nearest", **options)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=11)
    return shown
