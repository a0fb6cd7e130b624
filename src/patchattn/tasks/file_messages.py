"""Errors and warnings about image files: decoder errors, and what is left out or converted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from patchattn.tasks.codecs import Samples
from patchattn.tasks.warnings import FileWarning, MetadataWarning

__all__ = ["decoding", "warning_of", "warnings_about"]


@contextmanager
def decoding(name: str, argument: str) -> Iterator[list[FileWarning]]:
    """Turn any exception of a decoder into a ValueError of one sentence.

    Yields:
        A list that receives the decoders' warnings at the end.
    """
    collected: list[FileWarning] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield collected
    except MemoryError:
        raise
    except RuntimeError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise
        raise ValueError(_unreadable(name, argument, error)) from error
    except Exception as error:
        # Every decoder has its own exceptions for damaged files, IndexError and struct.error among them.
        raise ValueError(_unreadable(name, argument, error)) from error
    # Those of other kinds speak of the decoders and not of the file.
    messages = dict.fromkeys(str(one.message).strip().rstrip(".") for one in caught if one.category is UserWarning)
    collected += [FileWarning(f"{argument}: {name}: {message}.") for message in messages]


def warnings_about(samples: Samples, name: str, argument: str) -> Iterator[FileWarning]:
    """Yield the warnings about a file that was read."""
    if samples.damaged:
        what = " and ".join(samples.damaged)
        yield MetadataWarning(f"{argument}: the {what} of {name} is damaged; what cannot be read of it is left out.")
    for note in samples.notes:
        yield FileWarning(f"{argument}: {name} {note}.")


def warning_of(note: str, name: str, argument: str) -> FileWarning:
    """Return the warning about a file that was written."""
    return (MetadataWarning if "EXIF" in note or "XMP" in note else FileWarning)(f"{argument}: {name}: {note}.")


def _unreadable(name: str, argument: str, error: Exception) -> str:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if type(error).__name__ == "UnidentifiedImageError":  # Pillow's own words repeat the path
        reason = "its format is unknown"
    return (
        f"{argument}: cannot read {name} as an image ({reason}); "
        "expected PNG, JPEG, TIFF, WebP, BMP or another format that Pillow reads, of 8 or 16 bits a channel."
    )
