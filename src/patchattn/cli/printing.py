"""What commands tell on stdout."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import typer

__all__ = ["Told", "megabytes", "print_json", "print_lines"]


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


def print_lines(**lines: object) -> None:
    """Print names and values in two columns; what is None is left out."""
    width = max(map(len, lines))
    for name, value in lines.items():
        if value is not None:
            typer.echo(f"{name:{width}}  {value}")


def print_json(content: dict[str, Any]) -> None:
    """Print one JSON object."""
    # JSON has no infinity, which the PSNR of a perfect copy is.
    unknown = {name: None for name, value in content.items() if isinstance(value, float) and not math.isfinite(value)}
    finite = content | unknown
    typer.echo(json.dumps(finite, indent=2, allow_nan=False))
