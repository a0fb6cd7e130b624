"""Picture files to and from arrays of samples; see `images` for pictures as tensors."""

from patchattn.tasks.codecs.reading import decode
from patchattn.tasks.codecs.samples import Samples
from patchattn.tasks.codecs.writing import FORMATS, Format, encode

__all__ = ["FORMATS", "Format", "Samples", "decode", "encode"]
