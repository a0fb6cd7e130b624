"""Many pictures coloured one after another: the frames of a film, or the pictures of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchattn.checks import check_choice
from patchattn.field import MatchField
from patchattn.tasks.colorize import Colorization, colorize
from patchattn.tasks.files import PathLike
from patchattn.tasks.folders import FolderReport, map_folder
from patchattn.tasks.images import Picture, read_picture

__all__ = ["SOURCES", "FrameColorizer", "colorize_folder"]

SOURCES = ("reference", "previous")


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

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is carried from picture to picture: another one that loads it goes on alike."""
        state: dict[str, Tensor] = {}
        if self._field is not None and self._sizes is not None:
            state |= {"index": self._field.index, "similarity": self._field.similarity}
            state |= {"key_shape": torch.tensor(self._field.key_shape), "sizes": torch.tensor(self._sizes)}
        if self._source == "previous":
            state["reference"] = self._reference.colour
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what another one with the same reference and settings has carried."""
        if "index" in state:
            key_shape = tuple(state["key_shape"].tolist())
            self._field = MatchField(state["index"], state["similarity"], key_shape)
            picture, reference = state["sizes"].tolist()
            self._sizes = (tuple(picture), tuple(reference))
        if "reference" in state:
            self._reference = replace(self._reference, colour=state["reference"], alpha=None)

    def follow(self, coloured: Picture) -> None:
        """Go on from a picture that was coloured before, as if it had been the last."""
        if self._source == "previous":
            self._reference = coloured


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
    return map_folder(
        pictures,
        output,
        partial(read_picture, argument=argument),
        lambda picture: colour(picture).picture,
        finished=lambda result: colour.follow(read_picture(result, argument=output_argument)),
        resume=resume,
        on_error=on_error,
        progress=progress,
        output_argument=output_argument,
    )
