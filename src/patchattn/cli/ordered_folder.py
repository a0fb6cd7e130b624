"""Folders whose images are worked on in their order, each handing a state on to the next."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from patchattn.cli.image_tool import FolderOfImages, Given, ImageTool, Result
from patchattn.cli.reading import read
from patchattn.tasks.warnings import FileWarning

if TYPE_CHECKING:
    from torch import Tensor

    from patchattn.tasks.folders import FolderImage
    from patchattn.tasks.images import Image

__all__ = ["OrderedFolder", "OrderedProcessor"]

STATE = ".patchattn-state-"
"""Prefix of the names of files that hold the state after an image; its key follows."""
STATE_FORMAT = "patchattn state 1"
START = "start"
"""The key before the first image."""

Read = TypeVar("Read", bound=Given)
ReadIn = TypeVar("ReadIn", bound=Given, contravariant=True)


class OrderedProcessor(Protocol[ReadIn]):
    """Work on one image after another."""

    def __call__(self, given: ReadIn, /) -> Result:
        """Work on the next image."""

    def follow(self, result: Image) -> None:
        """Go on from a result that was read from its file."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that is carried from image to image."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state."""


class OrderedFolder(FolderOfImages[Read]):
    """The images of a folder in their order, each of which hands its state on to the next.

    The key of an image depends on those before it that succeeded, so that a result counts as finished only if it is
    what an uninterrupted run would have made. The state after the last finished image lies in the folder, and so does
    the one before an image that failed, for a later run that has more luck with it.
    """

    ordered = True

    def __init__(self, tool: ImageTool[Read], work: OrderedProcessor[Read]) -> None:
        super().__init__(tool, work)
        self._folder, self._ordered_work = tool.output, work
        self._first = work.state_dict()
        self._chain = START
        """The key of the last image that succeeded."""
        self._held: str | None = START
        """The key of the image after which the state is; None: the state is of no use."""
        self._last: Path | None = None
        """The last finished result."""
        self._needed: set[str] = set()
        """The keys whose states are needed for images that failed."""

    def key(self, source: FolderImage) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(source), self._chain)

    def make(self, source: FolderImage, target: Path) -> Path:
        from patchattn.networks.tensors import tensor_bytes
        from patchattn.tasks.files import atomic_writer

        self._go_on_from(self._chain)
        others = self._needed.copy()
        self._needed.add(self._chain)
        self._held = None
        path = super().make(source, target)
        key = self.key(source)
        with atomic_writer(self._state_file(key), argument="--output") as file:
            file.write(tensor_bytes(self._ordered_work.state_dict(), {"format": STATE_FORMAT}))
        self._needed, self._held = others, key
        return path

    def recorded(self, source: FolderImage, key: str, result: Path) -> None:
        before, self._chain, self._last = self._chain, key, result
        if before not in self._needed:
            self._state_file(before).unlink(missing_ok=True)

    def finish(self) -> None:
        for path in self._folder.glob(f"{STATE}*"):
            if path.name.removeprefix(STATE) not in self._needed:
                path.unlink(missing_ok=True)

    def _go_on_from(self, key: str) -> None:
        """Restore the state after an image: of an earlier run, or of before a failure."""
        if key == self._held:
            return
        from patchattn.networks.tensors import read_tensors

        path = self._state_file(key)
        self._ordered_work.load_state_dict(self._first)
        if path.is_file():
            self._ordered_work.load_state_dict(read_tensors(path, STATE_FORMAT, argument="--output")[0])
        elif self._last is not None:
            self._ordered_work.follow(read(self._last, "--output"))
            warnings.warn(
                f"--output: the state after the last finished image is not in {self._folder} any more; the search of "
                "the next one starts afresh, and single pixels may differ from those of an uninterrupted run.",
                FileWarning,
                stacklevel=2,
            )
        self._held = key

    def _state_file(self, key: str) -> Path:
        return self._folder / f"{STATE}{key}"
