"""Image files to and from arrays of samples; see `images` for images as tensors."""

from patchattn.tasks.codecs.animations import TimedFrame
from patchattn.tasks.codecs.color_chunks import NO_COLOR_CHUNKS, ColorChunks
from patchattn.tasks.codecs.pillow import from_pillow
from patchattn.tasks.codecs.reading import MultiImageFile, decode, open_frames
from patchattn.tasks.codecs.samples import Notes, Samples
from patchattn.tasks.codecs.writing import (
    FORMATS,
    READ_SUFFIXES,
    SEQUENCE_FORMATS,
    Format,
    Playback,
    encode,
    encode_frames,
    to_pillow,
)

__all__ = [
    "FORMATS",
    "NO_COLOR_CHUNKS",
    "READ_SUFFIXES",
    "SEQUENCE_FORMATS",
    "ColorChunks",
    "Format",
    "MultiImageFile",
    "Notes",
    "Playback",
    "Samples",
    "TimedFrame",
    "decode",
    "encode",
    "encode_frames",
    "from_pillow",
    "open_frames",
    "to_pillow",
]
