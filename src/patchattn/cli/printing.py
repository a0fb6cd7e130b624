"""Reports on standard output: for people in two columns, or for programs as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from patchattn.cli.streams import is_stream

if TYPE_CHECKING:
    from patchattn.tasks.images import Image

__all__ = ["Report", "Summary", "image_details", "image_summary"]

INCOMPLETE = 1
"""The exit code when something was skipped or is missing."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The outcome of a command that writes files."""

    output: Path
    done: list[str]
    """The files that were worked on, by the names that they were read from."""
    seconds: float
    peak_memory: int | None
    """In bytes, of the whole process; None: not available on this system."""
    settings: dict[str, Any]
    model: str | None = None
    finished_before: Any = field(default_factory=list)
    """The files, or of a video the number of frames, that an earlier run had finished."""
    skipped: dict[str, str] = field(default_factory=dict)
    """The files that failed, and why."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """Numbers of files of each kind in a folder that are no images."""
    details: dict[str, Any] = field(default_factory=dict)
    """Entries of this command alone, for programs."""
    lines: dict[str, object] = field(default_factory=dict)
    """The report for people, without time and memory."""
    is_incomplete: bool = False
    """Something was skipped or is missing."""

    def print(self, warned: list[str], *, as_json: bool) -> None:
        """Print the report, and exit if something was skipped; on stderr where the result went to stdout."""
        err = is_stream(self.output)
        if as_json:
            content = {
                "output": str(self.output),
                "done": self.done,
                "finished_before": self.finished_before,
                "skipped": self.skipped,
                "passed_over": self.passed_over,
                **self.details,
                "seconds": self.seconds,
                "peak_memory_bytes": self.peak_memory,
                "model": self.model,
                "settings": self.settings,
                "warnings": warned,
            }
            _print_json(content, err=err)
        else:
            more = {"time": f"{self.seconds:.2f} s", "memory": _megabytes(self.peak_memory)}
            _print_columns({**self.lines, **more}, err=err)
        if self.is_incomplete:
            raise typer.Exit(INCOMPLETE)


@dataclass(frozen=True)
class Summary:
    """The outcome of a command that works on no files, or on many."""

    details: dict[str, Any]
    """For programs."""
    lines: dict[str, object]
    """For people; what is None is left out."""

    def print(self, warned: list[str], *, as_json: bool) -> None:
        """Print one of the two."""
        if as_json:
            _print_json(self.details, err=False)
        else:
            _print_columns(self.lines, err=False)


def image_details(image: Image, frames: int = 1) -> dict[str, Any]:
    """Return the entries of a report that describe an image, or an animation's frames."""
    height, width = image.size
    return {"height": height, "width": width, "bit_depth": image.bit_depth, "frames": frames}


def image_summary(output: Path, image: Image, frames: int = 1) -> str:
    """Describe an image that was written, or an animation's frames."""
    height, width = image.size
    several = f"{frames} frames of " if frames > 1 else ""
    return f"{output} ({several}{width} x {height}, {image.bit_depth} bit)"


def _megabytes(size: int | None) -> str:
    return "not available on this system" if size is None else f"{size / 2**20:.0f} MiB at most, the whole process"


def _print_columns(lines: Mapping[str, object], *, err: bool) -> None:
    width = max(map(len, lines))
    for name, value in lines.items():
        if value is not None:
            typer.echo(f"{name:{width}}  {value}", err=err)


def _print_json(content: dict[str, Any], *, err: bool) -> None:
    """Print one JSON object."""
    # JSON has no infinity, which the PSNR of a perfect copy is.
    unknown = {name: None for name, value in content.items() if isinstance(value, float) and not math.isfinite(value)}
    finite = content | unknown
    typer.echo(json.dumps(finite, indent=2, allow_nan=False), err=err)
