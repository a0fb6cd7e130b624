"""Many images colored one after another: the frames of a video, or the images of a folder."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch

from patchattn.checks import check_choice
from patchattn.field import MatchField
from patchattn.tasks.colorize import Colorization, colorize
from patchattn.tasks.images import Picture

__all__ = ["SOURCES", "FrameColorizer"]

SOURCES = ("reference", "previous")


class FrameColorizer:
    """Colors images one after another; each search starts from the field of the one before it.

    Args:
        reference: the image to take colors from.
        source: `"reference"`: every image is colored after the reference. `"previous"`: the first one is, and every
            other after the result before it, as it is written; that one is more alike, but its errors are handed on.
        settings: those of `colorize`.

    Raises:
        ValueError: `source` is none of the two.

    Example:
        >>> colorizer = FrameColorizer(Picture(torch.rand(1, 3, 24, 32)), patch_size=3)
        >>> [colorizer(Picture(torch.rand(1, 1, 24, 32))).picture.colour.shape[1] for _ in range(2)]
        [3, 3]
    """

    def __init__(self, reference: Picture, *, source: str = "reference", **settings: Any) -> None:
        check_choice("source", source, SOURCES)
        self._reference, self._source, self._settings = reference, source, settings
        self._field: MatchField | None = None
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None

    def __call__(self, picture: Picture) -> Colorization:
        """Color the next image."""
        sizes = (picture.size, self._reference.size)
        # A field of other sizes says nothing about these two.
        start = self._field if sizes == self._sizes else None
        result = colorize(picture, self._reference, init=start, **self._settings)
        self._field, self._sizes = result.field, sizes
        if self._source == "previous":
            self._reference = _as_written(result.picture)
        return result

    def follow(self, result: Picture) -> None:
        """Go on from a result that was read from its file, as far as that is possible: without its field."""
        self._field = self._sizes = None
        if self._source == "previous":
            self._reference = _as_written(result)

    def state(self) -> bytes:
        """Return what is handed on to the next image, as the content of a file: `restore` goes on from there.

        Example:
            >>> reference, gray = Picture(torch.rand(1, 3, 24, 32)), Picture(torch.rand(1, 1, 24, 32))
            >>> one, other = (FrameColorizer(reference, source="previous", patch_size=3) for _ in range(2))
            >>> _ = one(gray)
            >>> other.restore(one.state())
            >>> torch.equal(one(gray).picture.colour, other(gray).picture.colour)
            True
        """
        arrays: dict[str, Any] = {}
        if self._field is not None:
            arrays["index"], arrays["similarity"] = self._field.index.numpy(), self._field.similarity.numpy()
            arrays["key_shape"], arrays["sizes"] = np.array(self._field.key_shape), np.array(self._sizes)
        if self._source == "previous":
            largest = 2**self._reference.bit_depth - 1
            samples = self._reference.colour.mul(largest).round().numpy()
            arrays["reference"] = samples.astype(np.uint8 if largest == 255 else np.uint16)
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()

    def restore(self, state: bytes) -> None:
        """Go on as the colorizer would have that returned this state.

        Raises:
            ValueError: it is no such state.
        """
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
                kept = {name: arrays[name] for name in arrays.files}
        except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"state: it cannot be read ({error}); expected what `state` returned.") from error
        self._field = self._sizes = None
        if "index" in kept:
            index, similarity = torch.from_numpy(kept["index"]), torch.from_numpy(kept["similarity"])
            self._field = MatchField(index, similarity, tuple(map(int, kept["key_shape"])))
            first, second = kept["sizes"].tolist()
            self._sizes = (first[0], first[1]), (second[0], second[1])
        if "reference" in kept:
            samples = kept["reference"]
            colour = torch.from_numpy(samples.astype(np.float32)).div_(np.iinfo(samples.dtype).max)
            depth: Literal[8, 16] = 16 if samples.dtype == np.uint16 else 8
            self._reference = replace(self._reference, colour=colour, alpha=None, bit_depth=depth)


def _as_written(picture: Picture) -> Picture:
    """The image with its samples rounded to those of its file."""
    largest = 2**picture.bit_depth - 1
    return replace(picture, colour=picture.colour.clamp(0, 1).mul(largest).round().div(largest), alpha=None)
