"""Output targets: a file, or standard output."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchattn.cli.streams import check_stdout, is_stream, write_stream

if TYPE_CHECKING:
    from patchattn.tasks.images import Image
    from patchattn.tasks.sequences import ImageSequence

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """A file that is to be written, or `-`, standard output."""

    path: Path
    format: str | None = None
    argument: str = "--output"

    @property
    def _format(self) -> str | None:
        """The format, where the path's extension does not say it."""
        return self.format or "png" if is_stream(self.path) else self.format

    @property
    def extension(self) -> str:
        """The extension that stands for the format, in lower case."""
        from patchattn.tasks.sources import extension_of

        return extension_of(self.path, self._format)

    def check_place(self) -> None:
        """Raise what writing anything there would raise, before reading."""
        from patchattn.tasks.codecs import FORMATS, SEQUENCE_FORMATS
        from patchattn.tasks.files import check_output_file

        if self.extension in SEQUENCE_FORMATS and self.extension not in FORMATS and not is_stream(self.path):
            check_output_file(self.path, argument=self.argument)
        else:
            self.check()

    def frames_of(self, source: Path | bytes, argument: str) -> ImageSequence | None:
        """Return the frames or pages of a file that has several, if the target's format can hold them."""
        from patchattn.tasks.sequences import can_hold_frames, check_frames_output, count_frames, read_frames

        if count_frames(source, argument=argument) == 1:
            return None
        sequence = read_frames(source, argument=argument)
        if not can_hold_frames(self.path, sequence, format=self._format):
            return None
        check_frames_output(
            io.BytesIO() if is_stream(self.path) else self.path, sequence, format=self._format, argument=self.argument
        )
        return sequence

    def write_frames(self, frames: Iterable[Image], like: ImageSequence) -> None:
        """Write frames or pages, whole or not at all."""
        from patchattn.tasks.sequences import write_frames

        self._written(lambda target: write_frames(target, frames, like, format=self._format, argument=self.argument))

    def check(self, *, bit_depth: int = 8, alpha: bool = False) -> None:
        """Raise what writing would raise, before the work."""
        from patchattn.tasks.images import check_image_output

        stream = is_stream(self.path)
        if stream:
            check_stdout(argument=self.argument)
        check_image_output(
            io.BytesIO() if stream else self.path,
            bit_depth=bit_depth,
            alpha=alpha,
            format=self._format,
            argument=self.argument,
        )

    def write(self, image: Image) -> None:
        """Write an image, whole or not at all."""
        from patchattn.tasks.images import write_image

        self._written(lambda target: write_image(target, image, format=self._format, argument=self.argument))

    def _written(self, write: Callable[[Path | io.BytesIO], None]) -> None:
        if not is_stream(self.path):
            write(self.path)
            return
        content = io.BytesIO()
        write(content)
        write_stream(content.getvalue(), argument=self.argument)
