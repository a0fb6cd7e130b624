"""Image sequences: animations and multi-page files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from patchattn.tasks.codecs import (
    SEQUENCE_FORMATS,
    MultiImageFile,
    Playback,
    Samples,
    decode,
    encode_frames,
    open_frames,
)
from patchattn.tasks.file_messages import decoding, warning_of, warnings_about
from patchattn.tasks.image import Image, from_samples, to_samples
from patchattn.tasks.images import check_format
from patchattn.tasks.sources import Source, Target, check_target, extension_of, name_of, open_source, open_target
from patchattn.tasks.warnings import FileWarning

__all__ = [
    "SEQUENCE_FORMATS",
    "ImageSequence",
    "can_hold_frames",
    "check_frames_output",
    "count_frames",
    "read_frames",
    "write_frames",
]


@dataclass(frozen=True)
class ImageSequence:
    """Frames of an animation or pages of a document, with their playback settings.

    It can be iterated over any number of times, and reads one image after another. Frames are whole: each has the
    size of the canvas, and shows what a viewer shows at its time.
    """

    kind: Literal["animation", "pages"]
    """"animation" or "pages". All frames of an animation share size, bit depth and channels; pages may differ."""
    format: str
    """Format of the source: "gif", "png", "webp", "tiff" or "other"."""
    durations: tuple[float, ...]
    """Duration of each frame in seconds; 0 for pages."""
    plays: int = 1
    """Number of loops; 0: infinite."""
    background: tuple[int, int, int, int] | None = None
    """Background color of a WebP, RGBA from 0 to 255; most viewers ignore it."""
    alpha: bool = False
    """Whether the frames of an animation have alpha."""
    source: str | os.PathLike[str] | bytes = b""
    """Path of the file, or its bytes."""
    argument: str = "path"
    """Name of the source in error messages."""

    def __len__(self) -> int:
        return len(self.durations)

    def __iter__(self) -> Iterator[Image]:
        name = name_of(self.source)
        with open_source(self.source, argument=self.argument) as file:
            with decoding(name, self.argument):
                opened = open_frames(file)
            samples = (decode(one) for one in [file]) if opened is None else opened.frames(self.alpha)
            for number in range(len(self)):
                with decoding(name, self.argument):
                    one = next(samples)
                # Warnings about the whole file are issued once.
                if number == 0 or self.kind == "pages":
                    for warning in warnings_about(one, name, self.argument):
                        warnings.warn(warning, stacklevel=2)
                yield from_samples(one)


def count_frames(source: Source, *, argument: str = "path") -> int:
    """Count the frames or pages of an image file without decoding them.

    Raises:
        ValueError: there is no such file, it is damaged, or it is no image.

    Example:
        >>> count_frames(b"GIF89a" + bytes(7) + b";")
        Traceback (most recent call last):
        ValueError: path: cannot read standard input as an image (it holds no image); ...
    """
    with open_source(source, argument=argument) as file, decoding(name_of(source), argument):
        opened = open_frames(file)
    return 1 if opened is None else opened.count


def read_frames(source: Source, *, argument: str = "path") -> ImageSequence:
    """Open an animated GIF, PNG or WebP, or a multi-page TIFF.

    A file of one image is a sequence of one. All frames of an animation are decoded once here, so that a damaged one
    is found before any work; they are not kept.

    A `FileWarning` says what is left out: reduced copies and masks among the pages of a TIFF, and an image in an
    animated PNG that is none of its frames.

    Args:
        source: the file: a path; an open binary file or a pipe, which is read to its end; or the file's bytes.
        argument: name of `source` in error messages.

    Raises:
        ValueError: there is no such file, it is damaged, or it is no image.
        RuntimeError: an extra is not installed.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/two.gif"
        >>> frames = [Image(torch.full((1, 3, 4, 6), gray)) for gray in (0.0, 1.0)]
        >>> write_frames(path, frames, ImageSequence("animation", "gif", (0.1, 0.5), plays=0))
        >>> sequence = read_frames(path)
        >>> sequence.durations, [image.color.mean().item() for image in sequence]
        ((0.1, 0.5), [0.0, 1.0])
    """
    name = name_of(source)
    kept = source if isinstance(source, str | os.PathLike | bytes) else source.read()
    with open_source(kept, argument=argument) as file, decoding(name, argument):
        opened = open_frames(file)
        if opened is None:
            return ImageSequence("pages", "other", (0.0,), source=kept, argument=argument)
        if not opened.whole:
            raise ValueError(f"it is cut or damaged after page {opened.count}")
        sequence = _described(opened, kept, argument)
    notes = opened.notes
    if opened.animation is not None and opened.animation.still_apart:
        notes = (*notes, "has an image that is none of its frames, left out")
    for note in notes:
        warnings.warn(FileWarning(f"{argument}: {name} {note}."), stacklevel=2)
    return sequence


def _described(opened: MultiImageFile, source: str | os.PathLike[str] | bytes, argument: str) -> ImageSequence:
    animation = opened.animation
    if animation is None:
        return ImageSequence("pages", "tiff", (0.0,) * opened.count, source=source, argument=argument)
    return ImageSequence(
        "animation",
        opened.format,
        tuple(frame.duration for frame in animation.frames),
        animation.plays,
        animation.background,
        opened.has_alpha(),
        source,
        argument,
    )


def can_hold_frames(target: Target, sequence: ImageSequence, *, format: str | None = None) -> bool:
    """Return whether the target's format can hold all frames or pages.

    GIF, WebP and APNG hold animations of one another, TIFF holds pages. A name that ends in .png holds an animation
    only if it was one of PNG: other names of PNG files are understood as those of still images.

    Example:
        >>> animation = ImageSequence("animation", "gif", (0.1, 0.1))
        >>> [can_hold_frames(name, animation) for name in ("a.gif", "a.apng", "a.png", "a.tif", "a.jpg")]
        [True, True, False, False, False]
    """
    extension = extension_of(target, format)
    return SEQUENCE_FORMATS.get(extension) == sequence.kind and (extension != ".png" or sequence.format == "png")


def check_frames_output(
    target: Target, sequence: ImageSequence, *, argument: str = "path", format: str | None = None
) -> None:
    """Raise the errors that `write_frames` would raise, before the frames are computed.

    Raises:
        ValueError: the format is unknown or cannot hold the sequence, or nothing can be written there.
    """
    able = [extension for extension, kind in SEQUENCE_FORMATS.items() if kind == sequence.kind]
    check_format(target, format, able, argument)
    check_target(target, argument=argument)


def write_frames(
    target: Target,
    frames: Iterable[Image],
    like: ImageSequence,
    *,
    argument: str = "path",
    format: str | None = None,
) -> None:
    """Write an animation or pages one image at a time, atomically.

    The extension chooses the format: .gif, .webp (lossless), .png and .apng for animations, .tif and .tiff for pages.
    Frames keep their times, and the animation how often it is played. A `FileWarning` says what is lost: more than 256
    colors of a frame and partial transparency in GIF; times that are no multiple of its unit (GIF: 1/100 s, WebP:
    1/1000 s).

    Args:
        target: a path; or an open binary file or a pipe, which gets the whole file at once.
        frames: as many as `like` has. Those of an animation have one size.
        like: the sequence that gives durations, plays and background.
        argument: what an error calls `target`.
        format: such as "gif", instead of what the extension says. A stream has no extension.

    Raises:
        ValueError: the format is unknown or cannot hold the sequence, nothing can be written there, or the frames are
            none, or more or fewer than `like` has, or do not fit together.
        RuntimeError: an extra is not installed.

    Example:
        >>> import tempfile
        >>> path = tempfile.mkdtemp() + "/a.apng"
        >>> like = ImageSequence("animation", "png", (1 / 30, 1 / 30), plays=0)
        >>> write_frames(path, [Image(torch.rand(1, 1, 4, 6), bit_depth=16) for _ in range(2)], like)
        >>> next(iter(read_frames(path))).bit_depth
        16
    """
    check_frames_output(target, like, argument=argument, format=format)
    extension = extension_of(target, format)
    with open_target(target, argument=argument) as file:
        show = Playback(like.plays, like.background)
        notes = encode_frames(file, _timed(frames, like), extension, show)
    for note in notes:
        warnings.warn(warning_of(note, name_of(target, "standard output"), argument), stacklevel=2)


def _timed(frames: Iterable[Image], like: ImageSequence) -> Iterator[tuple[Samples, float]]:
    """Yield the samples and the duration of each frame."""
    first: Image | None = None
    count = 0
    for count, image in enumerate(frames, 1):
        if count > len(like):
            raise ValueError(f"frames: there are more than {len(like)}, which is how many like has.")
        if like.kind == "animation":
            first = first or image
            image = _fitting(image, first, like.alpha or first.alpha is not None)
        yield to_samples(image), like.durations[count - 1]
    if count != len(like):
        raise ValueError(f"frames: there are {count}; expected {len(like)}, which is how many like has.")


def _fitting(image: Image, first: Image, alpha: bool) -> Image:
    """Convert a frame to the channels that all frames of its animation have."""
    if (image.size, image.bit_depth) != (first.size, first.bit_depth):
        raise ValueError(
            f"frames: one has {image.size} pixels of {image.bit_depth} bits, the first {first.size} of "
            f"{first.bit_depth}; expected one size and depth."
        )
    if image.color.shape[1] != first.color.shape[1]:
        raise ValueError("frames: some are gray and some have colors; expected all gray or all RGB.")
    if alpha and image.alpha is None:
        return replace(image, alpha=torch.ones_like(image.color[:, :1]))
    if not alpha and image.alpha is not None:
        if bool((image.alpha < 1).any()):
            raise ValueError("frames: one is transparent somewhere, and the first has no alpha; give it one.")
        return replace(image, alpha=None)
    return image
