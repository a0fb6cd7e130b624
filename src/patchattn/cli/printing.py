"""What commands tell on stdout."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchattn.cli.streams import is_stream

if TYPE_CHECKING:
    from patchattn.tasks.images import Image

__all__ = ["Told", "megabytes", "print_json", "print_lines", "report_picture", "tell"]

INCOMPLETE = 1
"""The exit code when something was skipped or is missing."""


@dataclass(frozen=True)
class Told:
    """What was done, for programs and for people."""

    numbers: dict[str, Any]
    lines: dict[str, object]
    incomplete: bool = False
    """Something was skipped."""


def megabytes(size: int | None) -> str:
    """A peak of memory in words."""
    return "not told by this system" if size is None else f"{size / 2**20:.0f} MiB at most, the whole process"


def report_picture(
    output: Path, picture: Image, frames: int, seconds: float, memory: int | None, others: dict[str, str | None]
) -> Told:
    """Report one image that was written, or its frames, and the other files that were."""
    height, width = picture.size
    several = f"{frames} frames of " if frames > 1 else ""
    return Told(
        {
            **others,
            "height": height,
            "width": width,
            "bit_depth": picture.bit_depth,
            "frames": frames,
            "seconds": seconds,
            "peak_memory_bytes": memory,
        },
        {
            "wrote": f"{output} ({several}{width} x {height}, {picture.bit_depth} bit)",
            **{name.removeprefix("show_"): path for name, path in others.items()},
            "time": f"{seconds:.2f} s",
            "memory": megabytes(memory),
        },
    )


def tell(
    told: Told, output: Path, model: str | None, settings: dict[str, Any], warned: list[str], *, as_json: bool
) -> None:
    """Print what was done, and exit if something was skipped; on stderr where the result went to stdout."""
    err = is_stream(output)
    if as_json:
        content = {"output": str(output), **told.numbers, "model": model, "settings": settings, "warnings": warned}
        print_json(content, err=err)
    else:
        _print_columns(told.lines, err=err)
    if told.incomplete:
        raise typer.Exit(INCOMPLETE)


def print_lines(**lines: object) -> None:
    """Print names and values in two columns; what is None is left out."""
    _print_columns(lines, err=False)


def _print_columns(lines: Mapping[str, object], *, err: bool) -> None:
    width = max(map(len, lines))
    for name, value in lines.items():
        if value is not None:
            typer.echo(f"{name:{width}}  {value}", err=err)


def print_json(content: dict[str, Any], *, err: bool = False) -> None:
    """Print one JSON object."""
    # JSON has no infinity, which the PSNR of a perfect copy is.
    unknown = {name: None for name, value in content.items() if isinstance(value, float) and not math.isfinite(value)}
    finite = content | unknown
    typer.echo(json.dumps(finite, indent=2, allow_nan=False), err=err)
