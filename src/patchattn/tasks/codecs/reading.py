"""Image files to arrays of samples."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, Literal

import numpy as np

from patchattn.tasks.codecs.animations import Animation, composite, is_opaque
from patchattn.tasks.codecs.apng import parse_apng
from patchattn.tasks.codecs.bmp import decode_bmp
from patchattn.tasks.codecs.chunks import PNG_SIGNATURE
from patchattn.tasks.codecs.gif import GIF_SIGNATURES, parse_gif
from patchattn.tasks.codecs.heif import decode_avif, decode_heif, is_avif, is_heif
from patchattn.tasks.codecs.icc import fit_profile, is_sound, space_of
from patchattn.tasks.codecs.jpeg2000 import decode_jpeg2000, is_jpeg2000
from patchattn.tasks.codecs.jpeg_xl import decode_jpeg_xl, is_jpeg_xl
from patchattn.tasks.codecs.netpbm import decode_netpbm, is_netpbm
from patchattn.tasks.codecs.pillow import decode_with_pillow, upright
from patchattn.tasks.codecs.png import decode_png
from patchattn.tasks.codecs.samples import Array, Notes, Samples
from patchattn.tasks.codecs.tiff import TIFF_SIGNATURES, decode_tiff, find_pages
from patchattn.tasks.codecs.unsupported import refuse_unsupported
from patchattn.tasks.codecs.webp import is_webp, parse_webp

__all__ = ["MultiImageFile", "decode", "open_frames"]


def decode(file: BinaryIO, frame: int | None = None) -> Samples:
    """Read an image file; the format is recognized by the first bytes, not by the name.

    Args:
        file: open for reading, seekable.
        frame: index of the frame or page, from 0. None: the first, with a note on how many others there are.

    Raises:
        ValueError: there is no such frame, its samples are neither 8 nor 16 bits wide, or it is damaged. The decoders
            raise errors of other types for damaged files too. Damaged metadata are no error.
    """
    opened = open_frames(file)
    count = 1 if opened is None else opened.count
    if frame is not None and not 0 <= frame < count:
        raise ValueError(f"there is no frame {frame}; it has {count}, counted from 0")
    if opened is None:
        return _checked(_decode_still(file))
    if frame is not None:
        return next(islice(opened.frames(), frame, None))
    if opened.animation is not None and opened.animation.still_apart:
        still = _checked(_decode_still(file))
        return replace(still, notes=(*still.notes, f"has {count} frames besides its image, which are left out"))
    first = next(opened.frames())
    others = f"{count - 1} are" if count > 2 else "1 is"
    more = (f"has {count} {opened.parts}; the first is read and {others} left out",) if count > 1 else ()
    return replace(first, notes=(*first.notes, *opened.notes, *more))


@dataclass(frozen=True)
class MultiImageFile:
    """A file that may hold several frames or pages."""

    file: BinaryIO
    kind: Literal["animation", "pages"]
    animation: Animation | None
    pages: list[int]
    """Indices of TIFF pages among all directories."""
    notes: Notes = ()
    format: str = "tiff"
    whole: bool = True
    """Whether all pages could be found."""

    @property
    def count(self) -> int:
        return len(self.pages) if self.animation is None else len(self.animation.frames)

    @property
    def parts(self) -> str:
        """Plural noun for messages: "pages" or "frames"."""
        return "pages" if self.kind == "pages" else "frames"

    def has_alpha(self) -> bool:
        """Decode every frame of an animation and return whether any pixel is not opaque.

        Raises:
            ValueError: a frame is damaged, and others as of `decode`.
        """
        assert self.animation is not None
        return not is_opaque(self.animation, self._decode)

    def frames(self, alpha: bool | None = None) -> Iterator[Samples]:
        """Yield each whole frame or page, upright, with what belongs to it.

        Args:
            alpha: whether the frames of an animation come with alpha; None: those that are not opaque do.
        """
        if self.animation is None:
            for number in self.pages:
                yield _checked(decode_tiff(self.file, number))
            return
        # What belongs to all frames stands before the first; nothing does in GIF.
        like = (
            Samples(np.zeros((0, 0, 1), np.uint8))
            if self.format == "gif"
            else _checked(replace(_decode_still(self.file), notes=()))
        )
        for array in composite(self.animation, self._decode):
            transparent = (array[:, :, -1] < np.iinfo(array.dtype).max).any() if alpha is None else alpha
            shown: Array = array if transparent else array[:, :, :-1]
            yield replace(like, array=upright(shown, like.orientation))

    def _decode(self, still: bytes) -> Array:
        assert self.animation is not None
        return _channels(_decode_still(io.BytesIO(still)).array, self.animation.gray)


def open_frames(file: BinaryIO) -> MultiImageFile | None:
    """Find the frames or pages of a file; None if the format has none, or only the first is supported.

    Raises:
        ValueError: the file is damaged, and others as of `decode`.
    """
    file.seek(0)
    head = file.read(32)
    file.seek(0)
    if head[:4] in TIFF_SIGNATURES:
        pages = find_pages(file)
        return MultiImageFile(file, "pages", None, pages.numbers, pages.notes, whole=pages.whole)
    for name, known, parse in (
        ("gif", head[:6] in GIF_SIGNATURES, parse_gif),
        ("png", head.startswith(PNG_SIGNATURE), parse_apng),
        ("webp", is_webp(head), parse_webp),
    ):
        animation = parse(file.read()) if known else None
        if animation is not None:
            return MultiImageFile(file, "animation", animation, [], format=name)
    return None


def _channels(array: Array, gray: bool) -> Array:
    """Convert between gray and R = G = B, so that all frames of an animation are alike."""
    if gray == (array.shape[2] <= 2):
        return array
    color = array[:, :, :1] if gray else np.repeat(array[:, :, :1], 3, axis=2)
    parts = [color, array[:, :, -1:]] if array.shape[2] in (2, 4) else [color]
    same: Array = np.concatenate(parts, axis=2)
    return same


def _decode_deep_sgi(file: BinaryIO) -> Samples:
    samples = decode_with_pillow(file)
    return replace(samples, notes=(*samples.notes, "has 16 bits a channel, which are reduced to 8"))


DECODERS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO], Samples]], ...] = (
    (lambda head: head.startswith(PNG_SIGNATURE), decode_png),
    (lambda head: head[:2] == b"BM", decode_bmp),
    (is_netpbm, decode_netpbm),
    (is_jpeg2000, decode_jpeg2000),
    (is_avif, decode_avif),
    (is_heif, decode_heif),
    (is_jpeg_xl, decode_jpeg_xl),
    (lambda head: head[:2] == b"\x01\xda" and head[3:4] == b"\2", _decode_deep_sgi),
)
"""Decoders by the file's first bytes; Pillow decodes all others."""


def _decode_still(file: BinaryIO) -> Samples:
    file.seek(0)
    head = file.read(64)
    refuse_unsupported(file)
    file.seek(0)
    decoder = next((decoder for knows, decoder in DECODERS if knows(head)), decode_with_pillow)
    return decoder(file)


def _checked(samples: Samples) -> Samples:
    """Drop or convert a color profile that does not fit the samples; also checks that there are pixels."""
    if 0 in samples.array.shape:
        raise ValueError("it has no pixels")
    profile = samples.icc_profile
    if profile is None:
        return samples
    gray = samples.array.shape[2] <= 2
    if not is_sound(profile):
        note = "has a color profile that is damaged or of an unknown kind, left out"
        return replace(samples, icc_profile=None, notes=(*samples.notes, note))
    given, wanted = space_of(profile), "gray" if gray else "rgb"
    if given == wanted:
        return samples
    pixels, other = ("gray", "RGB") if gray else ("RGB", "gray")
    if given == "cmyk":
        note = f"has a color profile of CMYK, which says nothing of its {pixels} pixels, left out"
        return replace(samples, icc_profile=None, notes=(*samples.notes, note))
    note = f"has a color profile of {other} beside its {pixels} pixels; its equivalent for {pixels} takes its place"
    return replace(samples, icc_profile=fit_profile(profile, 1 if gray else 3), notes=(*samples.notes, note))
