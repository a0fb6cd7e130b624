"""Colorization of image sequences: frames of a video, or images of a folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from patchattn.checks import check_choice
from patchattn.deprecation import renamed_argument
from patchattn.field import MatchField
from patchattn.tasks.colorize import Colorization, colorize
from patchattn.tasks.images import Image

__all__ = ["SOURCES", "FrameColorizer"]

SOURCES = ("reference", "previous")


class FrameColorizer:
    """Colorize images one after another, starting each search from the previous field.

    Args:
        reference: the image to take colors from.
        source: `"reference"`: every image is colored after the reference. `"previous"`: the first one is, and every
            other after the result before it; that one is more alike, but its errors are handed on.
        settings: those of `colorize`.

    Raises:
        ValueError: `source` is none of the two.

    Example:
        >>> colorizer = FrameColorizer(Image(torch.rand(1, 3, 24, 32)), patch_size=3)
        >>> [colorizer(Image(torch.rand(1, 1, 24, 32))).image.color.shape[1] for _ in range(2)]
        [3, 3]
    """

    def __init__(self, reference: Image, *, source: str = "reference", **settings: Any) -> None:
        check_choice("source", source, SOURCES)
        self._reference, self._source, self._settings = reference, source, settings
        self._field: MatchField | None = None
        self._sizes: tuple[tuple[int, int], tuple[int, int]] | None = None

    @renamed_argument("picture", "image")
    def __call__(self, image: Image) -> Colorization:
        """Color the next image."""
        sizes = (image.size, self._reference.size)
        # A field of other sizes says nothing about these two.
        start = self._field if sizes == self._sizes else None
        result = colorize(image, self._reference, init=start, **self._settings)
        self._field, self._sizes = result.field, sizes
        # A frame that shows nothing has no colors to hand on.
        if self._source == "previous" and (result.image.alpha is None or result.image.alpha.any()):
            self._reference = result.image
        return result

    def follow(self, result: Image) -> None:
        """Continue from a result read back from its file, without its field."""
        self._field = self._sizes = None
        if self._source == "previous":
            self._reference = result

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state carried from image to image; a colorizer that loads it continues identically.

        Example:
            >>> reference, gray = Image(torch.rand(1, 3, 24, 32)), Image(torch.rand(1, 1, 24, 32))
            >>> one, other = (FrameColorizer(reference, source="previous", patch_size=3) for _ in range(2))
            >>> _ = one(gray)
            >>> other.load_state_dict(one.state_dict())
            >>> torch.equal(one(gray).image.color, other(gray).image.color)
            True
        """
        state: dict[str, Tensor] = {}
        if self._field is not None and self._sizes is not None:
            state |= {"index": self._field.index, "similarity": self._field.similarity}
            state |= {"key_shape": torch.tensor(self._field.key_shape), "sizes": torch.tensor(self._sizes)}
        if self._source == "previous":
            reference = self._reference
            state["reference"] = reference.color
            if reference.alpha is not None:
                state["alpha"] = reference.alpha
            if reference.icc_profile is not None:
                state["profile"] = torch.frombuffer(bytearray(reference.icc_profile), dtype=torch.uint8)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the state of a colorizer with the same reference and settings."""
        self._field = self._sizes = None
        if "index" in state:
            key_shape = tuple(state["key_shape"].tolist())
            self._field = MatchField(state["index"], state["similarity"], key_shape)
            image, reference = state["sizes"].tolist()
            self._sizes = (tuple(image), tuple(reference))
        if "reference" in state:
            profile = bytes(state["profile"].tolist()) if "profile" in state else None
            self._reference = Image(state["reference"], state.get("alpha"), icc_profile=profile)
