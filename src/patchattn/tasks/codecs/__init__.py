"""Image files to and from arrays of samples; see `images` for pictures as tensors."""

from patchattn.tasks.codecs.animations import Timed
from patchattn.tasks.codecs.color_chunks import NO_COLOR_CHUNKS, ColorChunks
from patchattn.tasks.codecs.reading import Opened, decode, open_frames
from patchattn.tasks.codecs.samples import Notes, Samples
from patchattn.tasks.codecs.writing import FORMATS, READ_SUFFIXES, SEQUENCE_FORMATS, Format, Show, encode, encode_frames

__all__ = [
    "FORMATS",
    "NO_COLOR_CHUNKS",
    "READ_SUFFIXES",
    "SEQUENCE_FORMATS",
    "ColorChunks",
    "Format",
    "Notes",
    "Opened",
    "Samples",
    "Show",
    "Timed",
    "decode",
    "encode",
    "encode_frames",
    "open_frames",
]
