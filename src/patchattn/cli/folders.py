"""Folders in, folders out: what must be right before the work."""

from __future__ import annotations

from pathlib import Path

from patchattn.cli.reading import any_size

__all__ = ["prepare_folders"]


def prepare_folders(given: Path, output: Path, on_error: str, *, argument: str) -> list[Path]:
    """Return the pictures of a folder whose results can go to another."""
    from patchattn.tasks.folders import ON_ERROR, pictures_of

    if on_error not in ON_ERROR:
        raise ValueError(f"--on-error: got {on_error}; allowed are stop and skip.")
    if output.resolve() == given.resolve():
        raise ValueError(f"--output: {output} is also {argument}; expected two different folders.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output: {output} is a file; {argument} is a folder, and so is what is written.")
    pictures = pictures_of(given, argument=argument)
    any_size()
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent} to make {output.name} in.")
    return pictures
