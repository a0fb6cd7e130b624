"""Folders in, folders out: their options, checks before the work, and the report after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchattn.cli.printing import Told, megabytes
from patchattn.cli.reading import any_size
from patchattn.cli.streams import is_stream

if TYPE_CHECKING:
    from patchattn.tasks.folders import FolderListing, FolderReport

__all__ = ["FolderOptions", "OnError", "Recursive", "Resume", "prepare_folders", "report_folder"]

Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Folder: leave images alone that are finished with the same settings, and go on after them.",
    ),
]
OnError = Annotated[
    str, typer.Option(help="Folder: at an image that fails, stop, or skip it, name it and exit with 1 at the end.")
]
Recursive = Annotated[
    bool, typer.Option("--recursive", help="Folder: look into its subfolders too; results are laid out alike.")
]


@dataclass(frozen=True)
class FolderOptions:
    """The options that are for folders."""

    resume: bool = False
    on_error: str = "stop"
    recursive: bool = False

    def refuse_for_one(self, given: Path) -> None:
        """Refuse them where one image is given."""
        if self.resume or self.on_error != "stop" or self.recursive:
            raise ValueError(f"--resume, --on-error and --recursive are for a folder, which {given} is not.")


def prepare_folders(given: Path, output: Path, options: FolderOptions, *, argument: str) -> FolderListing:
    """Return the images of a folder whose results can go to another."""
    from patchattn.tasks.folders import ON_ERROR, list_images

    if options.on_error not in ON_ERROR:
        raise ValueError(f"--on-error: got {options.on_error}; allowed are stop and skip.")
    if is_stream(output):
        raise ValueError(f"--output: {argument} is a folder, whose results cannot go to standard output.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output: {output} is a file; {argument} is a folder, and so is what is written.")
    listing = list_images(given, recursive=options.recursive, exclude=output, argument=argument)
    any_size()
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent} to make {output.name} in.")
    return listing


def report_folder(
    report: FolderReport,
    listing: FolderListing,
    output: Path,
    seconds: float,
    memory: int | None,
    options: FolderOptions,
) -> Told:
    """Say what became of a folder's images, and what was passed over."""
    from patchattn.tasks.folders import SUBFOLDERS, describe

    hint = " (--recursive looks into subfolders)" if SUBFOLDERS in listing.passed_over and not options.recursive else ""
    return Told(
        {
            "done": report.done,
            "finished_before": report.finished_before,
            "skipped": report.skipped,
            "passed_over": listing.passed_over,
            "seconds": seconds,
            "peak_memory_bytes": memory,
        },
        {
            "wrote": f"{output} ({len(report.done)} images)",
            "finished before": len(report.finished_before) if options.resume else None,
            "skipped": "\n".join(report.skipped.values()) or None,
            "passed over": describe(listing.passed_over) + hint if listing.passed_over else None,
            "time": f"{seconds:.2f} s",
            "memory": megabytes(memory),
        },
        incomplete=bool(report.skipped),
    )
