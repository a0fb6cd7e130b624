"""`patchattn inpaint`, on an image or a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from unicodedata import normalize

from patchattn.cli.image_tool import Given, ImageTool, Result
from patchattn.cli.options import on_device
from patchattn.cli.reading import any_size, source_of

if TYPE_CHECKING:
    from torch import Tensor

    from patchattn.tasks.images import Image
    from patchattn.tasks.inpaint import InpaintingModel
    from patchattn.tasks.masks import MaskOptions

__all__ = ["InpaintTool"]


@dataclass(frozen=True)
class GivenHole(Given):
    """An image, and masks of its size."""

    hole: Tensor | None
    """Coverage of each pixel, in [0, 1]."""
    keep_out: Tensor | None


@dataclass(frozen=True)
class InpaintTool(ImageTool[GivenHole]):
    """The command `inpaint`."""

    mask: Path | None
    keep_out: Path | None
    mask_color: str | None
    invert_mask: bool

    command: ClassVar[str] = "inpaint"

    def complete(self, path: Path, image: Image) -> GivenHole:
        from patchattn.tasks.masks import MaskOptions, add_jpeg_rim

        mask = MaskOptions(self.mask_color, self.invert_mask, "--mask", "--mask-color", "--invert-mask")
        hole = self._read_mask(self.mask, path, image, mask)
        keep_out = self._read_mask(self.keep_out, path, image, MaskOptions(None, False, "--keep-out", None, None))
        if hole is None and (image.alpha is None or bool((image.alpha == 1).all())):
            raise ValueError(f"--mask: none is given, and {path} has no transparent pixels to fill; expected a mask.")
        if hole is not None and "grow" not in self.settings:
            hole = add_jpeg_rim(hole, source_of(path, "PHOTO"))
        return GivenHole(image, hole, keep_out)

    def writes_alpha(self, given: GivenHole) -> bool:
        return given.hole is not None and given.image.alpha is not None

    def also_read(self) -> Mapping[str, Path | None]:
        return {"--mask": self.mask, "--keep-out": self.keep_out}

    def files_for(self, path: Path) -> list[Path]:
        masks = self.also_read().items()
        return [self._mask_of(path, mask, argument) for argument, mask in masks if mask is not None]

    def key(self) -> str:
        from patchattn.tasks.journal import digest_of

        return digest_of(super().key(), str(self.mask_color), str(self.invert_mask))

    def _read_mask(self, mask: Path | None, photo: Path, image: Image, options: MaskOptions) -> Tensor | None:
        if mask is None:
            return None
        from patchattn.tasks.masks import read_mask

        any_size()
        source = source_of(self._mask_of(photo, mask, options.argument), options.argument)
        return read_mask(source, image, options, photo_name=str(photo))

    def _mask_of(self, photo: Path, mask: Path, argument: str) -> Path:
        """Return the file of a mask; of a folder of masks, the one that is named as the photograph."""
        if not mask.is_dir():
            return mask
        subfolder = photo.parent.relative_to(self.source) if self.source.is_dir() else Path()
        folder = mask / subfolder
        return _named_as(photo, folder if folder.is_dir() else mask, argument)

    def begin(self) -> Callable[[GivenHole], Result]:
        from patchattn.tasks.inpaint import inpaint

        network = self.network()
        return lambda given: inpaint(
            given.image,
            given.hole,
            keep_out=given.keep_out,
            network=network,
            progress=self.stage,
            **self.settings,
        )

    def network(self) -> InpaintingModel | None:
        """Load the network that was asked for, if one was."""
        if self.model.name is None:
            return None
        from patchattn.networks.weights import load_inpainting_network

        return on_device(load_inpainting_network(self.model.name, attention=self.model.attention), self.options.device)


def _named_as(photo: Path, folder: Path, argument: str) -> Path:
    """Return the mask in a folder that belongs to an image."""
    from patchattn.tasks.codecs import READ_SUFFIXES

    # Some systems take names apart into letters and accents.
    stem = normalize("NFC", photo.stem)
    named = sorted(
        path
        for path in folder.iterdir()
        if normalize("NFC", path.stem) == stem and path.is_file() and not path.name.startswith(".")
    )
    if len(named) > 1:
        images = [path for path in named if path.suffix.lower() in READ_SUFFIXES]
        named = [path for path in images if path.name == photo.name] or images or named
    if len(named) != 1:
        listed = f" ({', '.join(path.name for path in named)}): remove or rename the others" if named else ""
        raise ValueError(f"{argument}: {folder} has {len(named)} files named {photo.stem}.*, expected one{listed}.")
    return named[0]
