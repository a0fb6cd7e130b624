"""Folders in, folders out: checks before the work, and the report after it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchattn.cli.options import FolderOptions
from patchattn.cli.printing import Report
from patchattn.cli.reading import any_size
from patchattn.cli.streams import is_stream

if TYPE_CHECKING:
    from patchattn.tasks.folders import FolderListing, FolderReport

__all__ = ["prepare_folders", "report_folder"]


def prepare_folders(given: Path, output: Path, options: FolderOptions, *, argument: str) -> FolderListing:
    """Return the images of a folder whose results can go to another."""
    from patchattn.tasks.folders import list_images

    if is_stream(output):
        raise ValueError(f"--output: {argument} is a folder, whose results cannot go to standard output.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output: {output} is a file; {argument} is a folder, and so is what is written.")
    listing = list_images(given, recursive=options.recursive, exclude=output, argument=argument)
    any_size()
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent} to make {output.name} in.")
    return listing


def report_folder(report: FolderReport, listing: FolderListing, options: FolderOptions, **common: Any) -> Report:
    """Report the images of a folder: done, skipped, passed over.

    Args:
        report: what became of the images.
        listing: what the folder holds.
        options: those that are for folders.
        common: the other fields of `Report`.
    """
    from patchattn.tasks.folders import SUBFOLDERS, describe

    hint = " (--recursive looks into subfolders)" if SUBFOLDERS in listing.passed_over and not options.recursive else ""
    return Report(
        done=report.done,
        finished_before=report.finished_before,
        skipped=report.skipped,
        passed_over=listing.passed_over,
        lines={
            "wrote": f"{common['output']} ({len(report.done)} images)",
            "finished before": len(report.finished_before) if options.resume else None,
            "skipped": "\n".join(report.skipped.values()) or None,
            "passed over": describe(listing.passed_over) + hint if listing.passed_over else None,
        },
        is_incomplete=bool(report.skipped),
        **common,
    )
