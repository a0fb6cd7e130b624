"""Warnings about files: what was left out or converted."""

from __future__ import annotations

__all__ = ["FileWarning", "MetadataWarning"]


class FileWarning(UserWarning):
    """Part of a file was left out or converted; the message names the file, the part and the reason.

    The command line prints each on stderr, and lists them under `warnings` with `--json`.
    """


class MetadataWarning(FileWarning):
    """Some metadata (EXIF, XMP) had to be left out."""
