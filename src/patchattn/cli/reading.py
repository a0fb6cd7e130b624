"""Images that the user has named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchattn.cli.streams import is_stream, read_stream

if TYPE_CHECKING:
    from patchattn.tasks.images import Image

__all__ = ["any_size", "read", "source_of"]


def read(path: Path, argument: str) -> Image:
    """Read an image of any size; `-` is standard input."""
    any_size()
    from patchattn.tasks.images import read_image

    return read_image(source_of(path, argument), argument=argument)


def source_of(path: Path, argument: str) -> Path | bytes:
    """Return the file to read, or the content of standard input for `-`."""
    return read_stream(argument=argument) if is_stream(path) else path


def any_size() -> None:
    """Let images have any number of pixels."""
    from patchattn.extras import extra

    with extra("tools"):
        from PIL import Image
    # Pillow guards servers against huge images from strangers; here the user has named the file.
    Image.MAX_IMAGE_PIXELS = None
