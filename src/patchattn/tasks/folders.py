"""Folders of pictures, worked through one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from patchattn.checks import check_choice
from patchattn.tasks.codecs import READ_SUFFIXES
from patchattn.tasks.files import PathLike
from patchattn.tasks.images import Picture, check_picture_output, write_picture

__all__ = ["ON_ERROR", "FolderReport", "map_folder", "pictures_of"]

ON_ERROR = ("stop", "skip")

Read = TypeVar("Read")


@dataclass(frozen=True)
class FolderReport:
    """What became of the pictures of a folder; names are those of the files read."""

    done: list[str] = field(default_factory=list)
    finished_before: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Names of what could not be read, and why."""


def pictures_of(folder: PathLike, *, argument: str = "folder") -> list[Path]:
    """The pictures in a folder, by name.

    Raises:
        ValueError: there is none, or two would have results of one name.
    """
    found = sorted(
        path
        for path in Path(folder).iterdir()
        if path.is_file() and path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")
    )
    if not found:
        raise ValueError(f"{argument}: there is no picture in {folder}; looked for {', '.join(READ_SUFFIXES)}.")
    first: dict[str, Path] = {}
    for path in found:
        if first.setdefault(path.stem, path) != path:
            raise ValueError(
                f"{argument}: {first[path.stem].name} and {path.name} would both be written to {path.stem}.png; "
                "rename one."
            )
    return found


def map_folder(
    pictures: Sequence[Path],
    output: PathLike,
    read: Callable[[Path], Read],
    work: Callable[[Read], Picture],
    *,
    finished: Callable[[Path], None] | None = None,
    resume: bool = False,
    on_error: str = "stop",
    progress: Callable[[str], None] | None = None,
    output_argument: str = "output",
) -> FolderReport:
    """Make a picture of each in their order, and write it as NAME.png into a folder as soon as it is done.

    Args:
        pictures: see `pictures_of`.
        output: the folder, which is there.
        read: reads what belongs to a picture; raises ValueError if it cannot.
        work: makes the result of what was read.
        finished: told the result's file where it was there before.
        resume: leave pictures alone whose result is in the folder, and go on after them.
        on_error: `"stop"`: what cannot be read is an error. `"skip"`: it is named in the report.
        progress: called with the name of each picture as it begins.
        output_argument: what errors call the output.

    Returns:
        What became of them.

    Raises:
        ValueError: `on_error` is none of the two; a picture cannot be read; or a result cannot be written.
    """
    check_choice("on_error", on_error, ON_ERROR)
    report = FolderReport()
    for number, path in enumerate(pictures, 1):
        if progress is not None:
            progress(f"{path.name} ({number} of {len(pictures)})")
        result = Path(output) / f"{path.stem}.png"
        if resume and result.is_file():
            if finished is not None:
                finished(result)
            report.finished_before.append(path.name)
            continue
        check_picture_output(result, argument=output_argument)
        try:
            given = read(path)
        except ValueError as error:
            if on_error == "stop":
                raise
            report.skipped[path.name] = str(error)
            continue
        write_picture(result, work(given), argument=output_argument)
        report.done.append(path.name)
    return report
