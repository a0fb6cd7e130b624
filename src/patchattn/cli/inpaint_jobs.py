"""What `patchattn inpaint` does with a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from patchattn.cli.jobs import Given, Job
from patchattn.cli.options import on_device
from patchattn.cli.reading import read

if TYPE_CHECKING:
    from torch import Tensor

    from patchattn.tasks.images import Picture
    from patchattn.tasks.inpaint import Inpainting, InpaintingModel

__all__ = ["InpaintJob"]


@dataclass(frozen=True)
class GivenHole(Given):
    """A picture, and masks of its size."""

    hole: Tensor | None
    keep_out: Tensor | None


@dataclass(frozen=True)
class InpaintJob(Job[GivenHole]):
    """The arguments of the command."""

    mask: Path | None
    keep_out: Path | None

    command: ClassVar[str] = "inpaint"

    def complete(self, path: Path, picture: Picture) -> GivenHole:
        hole, keep_out = (_read_mask(path, mask, picture, argument) for argument, mask in self.also_read().items())
        if hole is None and picture.alpha is None:
            raise ValueError(f"--mask: none is given, and {path} has no transparent pixels to fill; expected a mask.")
        return GivenHole(picture, hole, keep_out)

    def also_read(self) -> Mapping[str, Path | None]:
        return {"--mask": self.mask, "--keep-out": self.keep_out}

    def files_for(self, path: Path) -> list[Path]:
        masks = self.also_read().items()
        return [_mask_for(path, mask, argument) for argument, mask in masks if mask is not None]

    def begin(self) -> Callable[[GivenHole], Inpainting]:
        from patchattn.tasks.inpaint import inpaint

        network = self._network()
        return lambda given: inpaint(
            given.picture,
            given.hole,
            keep_out=given.keep_out,
            network=network,
            progress=self.stage,
            **self.settings,
        )

    def _network(self) -> InpaintingModel | None:
        if self.model.name is None:
            return None
        from patchattn.networks.weights import load_inpainting_network

        return on_device(load_inpainting_network(self.model.name, attention=self.model.attention), self.device)


def _read_mask(photo: Path, mask: Path | None, picture: Picture, argument: str) -> Tensor | None:
    """Where the mask is white; of a folder of masks, the one that is named as the photograph."""
    if mask is None:
        return None
    mask = _mask_for(photo, mask, argument)
    found = read(mask, argument)
    if found.size != picture.size:
        sizes = [f"{size[1]} x {size[0]}" for size in (found.size, picture.size)]
        raise ValueError(f"{argument}: {mask} has {sizes[0]} pixels, {photo} has {sizes[1]}; expected the same size.")
    return found.colour.mean(1)[0] > 0.5


def _mask_for(photo: Path, mask: Path, argument: str) -> Path:
    """The file of a mask; of a folder of masks, the one that is named as the photograph."""
    if not mask.is_dir():
        return mask
    named = sorted(path for path in mask.iterdir() if path.stem == photo.stem)
    if len(named) != 1:
        raise ValueError(f"{argument}: {mask} has {len(named)} files named {photo.stem}.*, expected one.")
    return named[0]
