"""Where results go: a file, or standard output."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchattn.cli.streams import check_stdout, is_stream, write_stream

if TYPE_CHECKING:
    from patchattn.tasks.images import Picture

__all__ = ["Format", "Target"]

Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Format of the result: png, tif, webp, jpg or bmp.",
        show_default="the extension of --output; png for standard output",
    ),
]


@dataclass(frozen=True)
class Target:
    """A file that is to be written, or `-`, standard output."""

    path: Path
    format: str | None = None
    argument: str = "--output"

    @property
    def extension(self) -> str:
        """The extension that stands for the format, in lower case."""
        if self.format is not None:
            return "." + self.format.lower().removeprefix(".")
        return ".png" if is_stream(self.path) else self.path.suffix.lower()

    def check(self, *, bit_depth: int = 8, alpha: bool = False) -> None:
        """Raise what writing would raise, before the work."""
        from patchattn.tasks.images import check_picture_output

        stream = is_stream(self.path)
        if stream:
            check_stdout(argument=self.argument)
        check_picture_output(
            io.BytesIO() if stream else self.path,
            bit_depth=bit_depth,
            alpha=alpha,
            format=self.extension,
            argument=self.argument,
        )

    def write(self, picture: Picture) -> None:
        """Write an image, whole or not at all."""
        from patchattn.tasks.images import write_picture

        if not is_stream(self.path):
            write_picture(self.path, picture, format=self.extension, argument=self.argument)
            return
        content = io.BytesIO()
        write_picture(content, picture, format=self.extension, argument=self.argument)
        write_stream(content.getvalue(), argument=self.argument)
