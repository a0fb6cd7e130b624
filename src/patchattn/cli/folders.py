"""Folders in, folders out: their options, what must be right before the work, and what is told after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchattn.cli.printing import Told, megabytes
from patchattn.cli.reading import any_size

if TYPE_CHECKING:
    from patchattn.tasks.folders import FolderReport

__all__ = ["OnError", "Resume", "check_one_picture", "prepare_folders", "tell_folder"]

Resume = Annotated[
    bool, typer.Option("--resume", help="Folder: leave pictures alone whose result is there, and go on after them.")
]
OnError = Annotated[
    str, typer.Option(help="Folder: at a picture that cannot be read, stop, or skip it and exit with 1 at the end.")
]


def check_one_picture(given: Path, resume: bool, on_error: str) -> None:
    """Refuse what is for folders where one picture (or film) is given."""
    if resume or on_error != "stop":
        raise ValueError(f"--resume and --on-error are for a folder, which {given} is not.")


def prepare_folders(given: Path, output: Path, on_error: str, *, argument: str) -> list[Path]:
    """Return the pictures of a folder whose results can go to another."""
    from patchattn.tasks.folders import ON_ERROR, pictures_of

    if on_error not in ON_ERROR:
        raise ValueError(f"--on-error: got {on_error}; allowed are stop and skip.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output: {output} is a file; {argument} is a folder, and so is what is written.")
    pictures = pictures_of(given, argument=argument)
    any_size()
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent} to make {output.name} in.")
    return pictures


def tell_folder(
    done: str, report: FolderReport, output: Path, seconds: float, memory: int | None, resume: bool
) -> Told:
    """What became of a folder's pictures; `done` is what programs read the finished ones by."""
    return Told(
        {
            done: report.done,
            "finished_before": report.finished_before,
            "skipped": report.skipped,
            "seconds": seconds,
            "peak_memory_bytes": memory,
        },
        {
            "wrote": f"{output} ({len(report.done)} pictures)",
            "finished before": len(report.finished_before) if resume else None,
            "skipped": "\n".join(report.skipped.values()) or None,
            "time": f"{seconds:.2f} s",
            "memory": megabytes(memory),
        },
        incomplete=bool(report.skipped),
    )
