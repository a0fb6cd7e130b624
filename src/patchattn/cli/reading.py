"""Pictures that the user has named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from patchattn.tasks.images import Picture

__all__ = ["any_size", "read"]


def read(path: Path, argument: str) -> Picture:
    """Read a picture of any size."""
    any_size()
    from patchattn.tasks.images import read_picture

    return read_picture(path, argument=argument)


def any_size() -> None:
    """Let pictures have any number of pixels."""
    from patchattn.extras import extra

    with extra("tools"):
        from PIL import Image
    # Pillow guards servers against huge pictures from strangers; here the user has named the file.
    Image.MAX_IMAGE_PIXELS = None
