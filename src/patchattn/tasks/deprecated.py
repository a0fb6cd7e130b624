"""Old attributes of the results of tasks, which warn and go on working until 1.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchattn.deprecation import warn_renamed
from patchattn.tasks.peak_memory import peak_memory

if TYPE_CHECKING:
    from patchattn.tasks.image import Image

__all__ = ["ImageResult"]


class ImageResult:
    """Base of the results of tasks, with the attributes that they had before."""

    if TYPE_CHECKING:

        @property
        def image(self) -> Image: ...

    @property
    def picture(self) -> Image:  # deprecated name
        """Old name of `image`."""
        warn_renamed(f"{type(self).__name__}.picture", f"{type(self).__name__}.image")
        return self.image

    @property
    def peak_memory(self) -> int | None:
        """Old place of `tasks.peak_memory.peak_memory()`, which is of the process and not of a result."""
        warn_renamed(f"{type(self).__name__}.peak_memory", "patchattn.tasks.peak_memory.peak_memory()")
        return peak_memory()
