"""Image files as the frames of one video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from patchattn.tasks.images import Image, read_image
from patchattn.tasks.journal import digest_of, digest_of_file

__all__ = ["FrameFiles"]


@dataclass(frozen=True)
class FrameFiles:
    """Image files of one size, in their order; a stand-in for `video.DecodedFrames`."""

    files: Sequence[Path]
    argument: str
    """Name of their folder in error messages."""

    def __len__(self) -> int:
        return len(self.files)

    @property
    def path(self) -> Path:
        """The folder of the first."""
        return self.files[0].parent

    @cached_property
    def size(self) -> tuple[int, int]:
        """(height, width) of the first."""
        return self._read(0).size

    @cached_property
    def digest(self) -> str:
        """Digest of all files."""
        return digest_of(*map(digest_of_file, self.files))

    @cached_property
    def has_alpha(self) -> bool:
        """Whether the first has alpha."""
        return self._read(0).alpha is not None

    def starting_at(self, first: int, *, alpha: bool = False) -> Iterator[Image]:
        """Yield the images from one on; those with alpha have it in any case.

        Raises:
            ValueError: one cannot be read, or has another size.
        """
        for number in range(first, len(self.files)):
            image = self._read(number)
            if image.size != self.size:
                this, usual = (f"{width} x {height}" for height, width in (image.size, self.size))
                raise ValueError(
                    f"{self.argument}: {self.files[number]} has {this} pixels, {self.files[0].name} has {usual}; "
                    "expected one size for all frames."
                )
            yield image

    def _read(self, number: int) -> Image:
        return read_image(self.files[number], argument=self.argument)
