"""Processing of folders of images."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Protocol

from patchattn.checks import check_choice
from patchattn.deprecation import renamed_argument
from patchattn.tasks.codecs import READ_SUFFIXES
from patchattn.tasks.files import PathLike
from patchattn.tasks.journal import JOURNAL, Journal
from patchattn.tasks.memory_errors import out_of_memory

__all__ = [
    "MAX_ATTEMPTS",
    "ON_ERROR",
    "FolderImage",
    "FolderListing",
    "FolderProcessor",
    "FolderReport",
    "list_images",
    "map_folder",
]

ON_ERROR = ("stop", "skip")

MAX_ATTEMPTS = 2
"""Attempts after which an image is skipped, if each ended the process (most likely out of memory)."""

SUBFOLDERS = "subfolders"
HIDDEN = "hidden"


@dataclass(frozen=True)
class FolderImage:
    """An image file in a folder."""

    path: Path
    name: str
    """Path relative to the folder."""
    result: str
    """Path of the result relative to the output folder, without the extension."""


@dataclass(frozen=True)
class FolderListing:
    """Images in a folder."""

    images: list[FolderImage]
    """Images in natural order: frame2 before frame10."""
    passed_over: dict[str, int]
    """Number of skipped files by extension, and of `subfolders` and `hidden` files."""


@dataclass(frozen=True)
class FolderReport:
    """Outcome of `map_folder`; names are those of the input files."""

    done: list[str] = field(default_factory=list)
    finished_before: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Names of failed images, with the reasons."""


class FolderProcessor(Protocol):
    """Function on the images of a folder, with what `map_folder` needs to resume it."""

    @property
    def ordered(self) -> bool:
        """Whether a result depends on the images before it."""

    def key(self, source: FolderImage) -> str:
        """Return a digest of all that the result depends on."""

    def make(self, source: FolderImage, target: Path) -> Path:
        """Read an image, process it and write the result; returns its path, which is `target` with an extension."""

    def recorded(self, source: FolderImage, key: str, result: Path) -> None:
        """Called when the result is in the journal, written now or in an earlier run."""


def list_images(
    folder: PathLike, *, recursive: bool = False, exclude: Path | None = None, argument: str = "folder"
) -> FolderListing:
    """List the images in a folder.

    Two images whose names differ by their extension alone have results that keep it: `a.jpg.png` and `a.tif.png`.

    Args:
        folder: where to look.
        recursive: look into its subfolders too (not into links to folders).
        exclude: a subfolder to leave out, such as the output folder.
        argument: name of `folder` in error messages.

    Raises:
        ValueError: there is no image; the message says what there is.
    """
    folder = Path(folder)
    passed_over: Counter[str] = Counter()
    found = sorted(_images(folder, recursive, exclude, passed_over), key=_natural)
    if not found:
        there = f"; it holds {describe(passed_over)}" if passed_over else ""
        raise ValueError(f"{argument}: there is no image in {folder}{there}. Looked for {', '.join(READ_SUFFIXES)}.")
    results = _results(found)
    return FolderListing(
        [FolderImage(folder / path, path.as_posix(), results[path]) for path in found], dict(passed_over)
    )


def describe(passed_over: dict[str, int]) -> str:
    """Describe skipped files for a message, by kind.

    Example:
        >>> describe({".txt": 2, "hidden": 1})
        '2 .txt, 1 hidden'
    """
    return ", ".join(f"{count} {kind}" for kind, count in sorted(passed_over.items()))


def _images(folder: Path, recursive: bool, exclude: Path | None, passed_over: Counter[str]) -> Iterator[PurePath]:
    left_out = None if exclude is None else exclude.resolve()
    for parent, subfolders, names in os.walk(folder):
        for name in list(subfolders):
            path = Path(parent, name)
            if path.resolve() == left_out:
                subfolders.remove(name)
            elif name.startswith("."):
                subfolders.remove(name)
                passed_over[HIDDEN] += 1
            elif not recursive or path.is_symlink():
                subfolders.remove(name)
                passed_over[SUBFOLDERS] += 1
        for name in names:
            path = Path(parent, name)
            suffix = path.suffix.lower()
            if name.startswith("."):
                passed_over[HIDDEN] += name != JOURNAL
            elif suffix not in READ_SUFFIXES or not path.is_file():
                passed_over[suffix or "without extension"] += 1
            else:
                yield path.relative_to(folder)
    passed_over += Counter()  # without zeros


def _results(paths: Sequence[PurePath]) -> dict[PurePath, str]:
    """Name results after their images, without the extension unless names would collide."""
    results = {path: str(path.with_suffix("")) for path in paths}
    # Some file systems do not tell upper from lower case.
    while shared := {name for name, count in Counter(map(str.casefold, results.values())).items() if count > 1}:
        results |= {path: str(path) for path, name in results.items() if name.casefold() in shared}
    return results


def _natural(path: PurePath) -> list[tuple[list[tuple[int, int, str]], str]]:
    """Sort key that orders numbers in names by value."""
    return [
        (
            [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in re.split("([0-9]+)", name)],
            name,
        )
        for name in path.parts
    ]


@renamed_argument("work", "processor")
def map_folder(
    sources: Sequence[FolderImage],
    output: PathLike,
    processor: FolderProcessor,
    *,
    resume: bool = False,
    on_error: str = "stop",
    progress: Callable[[str], None] | None = None,
) -> FolderReport:
    """Process the images of a folder one by one, writing each result as soon as it is done.

    What is done stands in a journal in the folder (`Journal`). A run that resumes leaves alone what is finished under
    the same key, and whole; what failed before, or ended the process, comes last, unless the order counts. So a run
    never stops for ever at the same image.

    Args:
        sources: see `list_images`.
        output: the folder, which is there.
        processor: the function applied to each.
        resume: leave finished images alone.
        on_error: `"stop"`: the first failure ends the run. `"skip"`: whatever fails in one image (reading it, the work,
            writing) is named in the report, and the next one's turn comes.
        progress: called with the name of each image as it begins.

    Returns:
        What became of them.

    Raises:
        ValueError: `on_error` is none of the two.
        Exception: the first failure, with `"stop"`.
    """
    check_choice("on_error", on_error, ON_ERROR)
    journal, report = Journal(Path(output)), FolderReport()
    if resume and not processor.ordered:
        sources = sorted(sources, key=lambda source: journal.failed(source.name))
    for number, source in enumerate(sources, 1):
        if progress is not None:
            progress(f"{source.name} ({number} of {len(sources)})")
        try:
            _one(source, Path(output), processor, journal, resume, on_error, report)
        except Exception as error:
            journal.fail(source.name)
            if on_error == "stop":
                raise
            report.skipped[source.name] = reason_of(error, source.path)
    return report


def _one(
    source: FolderImage,
    output: Path,
    processor: FolderProcessor,
    journal: Journal,
    resume: bool,
    on_error: str,
    report: FolderReport,
) -> None:
    key = processor.key(source)
    before = journal.result_of(source.name, key) if resume else None
    if before is not None:
        processor.recorded(source, key, before)
        report.finished_before.append(source.name)
        return
    if resume and on_error == "skip" and (attempts := journal.attempts(source.name)) >= MAX_ATTEMPTS:
        raise ValueError(
            f"{source.path}: the process ended {attempts} times in the middle of it, most likely for lack of memory; "
            "try it alone, or without resuming."
        )
    target = output / source.result
    target.parent.mkdir(parents=True, exist_ok=True)
    journal.begin(source.name)
    result = processor.make(source, target)
    journal.done(source.name, key, result)
    processor.recorded(source, key, result)
    report.done.append(source.name)


def reason_of(error: Exception, path: Path) -> str:
    """Return an error message that names the file."""
    words = out_of_memory(error) or str(error).strip() or type(error).__name__
    if not isinstance(error, (ValueError, RuntimeError, OSError, MemoryError)):
        words = f"{type(error).__name__}: {words}"
    return words if str(path) in words else f"{path}: {words}"
