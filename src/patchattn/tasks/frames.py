"""Many pictures coloured one after another: the frames of a film, or the pictures of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchattn.checks import check_choice
from patchattn.field import MatchField
from patchattn.tasks.codecs import FORMATS
from patchattn.tasks.colorize import Colorization, colorize
from patchattn.tasks.files import PathLike
from patchattn.tasks.images import Picture, check_picture_output, read_picture, write_picture

__all__ = ["ON_ERROR", "SOURCES", "FolderReport", "FrameColorizer", "colorize_folder", "pictures_of"]

SOURCES = ("reference", "previous")
ON_ERROR = ("stop", "skip")

READ_SUFFIXES = (*FORMATS, ".ppm", ".pgm", ".gif", ".jp2", ".avif")
"""What the names of pictures in a folder end in; other files are left alone."""


class FrameColorizer:
    """Colours pictures one after another; each search starts from the field of the one before it.

    Args:
        reference: the picture to take colours from.
        source: `"reference"`: every picture is coloured after the reference. `"previous"`: the first one is, and every
            other after the result before it; that one is more alike, but its errors are handed on.
        settings: those of `colorize`.

    Raises:
        ValueError: `source` is none of the two.

    Example:
        >>> import torch
        >>> colour = FrameColorizer(Picture(torch.rand(1, 3, 24, 32)), patch_size=3)
        >>> [colour(Picture(torch.rand(1, 1, 24, 32))).picture.colour.shape[1] for _ in range(2)]
        [3, 3]
    """

    def __init__(self, reference: Picture, *, source: str = "reference", **settings: Any) -> None:
        check_choice("source", source, SOURCES)
        self._reference, self._source, self._settings = reference, source, settings
        self._field: MatchField | None = None
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None

    def __call__(self, picture: Picture) -> Colorization:
        """Colour the next picture."""
        sizes = (picture.size, self._reference.size)
        # A field of other sizes says nothing about these two.
        start = self._field if sizes == self._sizes else None
        result = colorize(picture, self._reference, init=start, **self._settings)
        self._field, self._sizes = result.field, sizes
        self.follow(result.picture)
        return result

    def follow(self, coloured: Picture) -> None:
        """Go on from a picture that was coloured before, as if it had been the last."""
        if self._source == "previous":
            self._reference = coloured


@dataclass(frozen=True)
class FolderReport:
    """What became of the pictures of a folder; names are those of the files read."""

    coloured: list[str] = field(default_factory=list)
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


def colorize_folder(
    pictures: Sequence[Path],
    output: PathLike,
    colour: FrameColorizer,
    *,
    resume: bool = False,
    on_error: str = "stop",
    progress: Callable[[str], None] | None = None,
    argument: str = "pictures",
    output_argument: str = "output",
) -> FolderReport:
    """Colour pictures in their order, and write each as NAME.png into a folder as soon as it is done.

    Args:
        pictures: see `pictures_of`.
        output: the folder, which is there.
        colour: what colours them.
        resume: leave pictures alone whose result is in the folder, and go on after them. The first search then starts
            without the field of the picture before it, so that single pixels may differ from an uninterrupted run.
        on_error: `"stop"`: a picture that cannot be read is an error. `"skip"`: it is named in the report.
        progress: called with the name of each picture as it begins.
        argument, output_argument: what errors call pictures and output.

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
            colour.follow(read_picture(result, argument=output_argument))
            report.finished_before.append(path.name)
            continue
        check_picture_output(result, argument=output_argument)
        try:
            picture = read_picture(path, argument=argument)
        except ValueError as error:
            if on_error == "stop":
                raise
            report.skipped[path.name] = str(error)
            continue
        write_picture(result, colour(picture).picture, argument=output_argument)
        report.coloured.append(path.name)
    return report
