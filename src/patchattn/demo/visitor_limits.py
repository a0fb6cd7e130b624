"""Limits on the images, files and jobs of each visitor and of all."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VisitorLimits"]


@dataclass(frozen=True)
class VisitorLimits:
    """Limits that are checked before anything is decoded, written or computed."""

    megapixels: float = 24.0
    """Largest image, input or result."""
    megabytes: float = 100.0
    """Largest file that is uploaded."""
    visitor_megabytes: float = 500.0
    """All files of a visitor that are kept at a time, uploads and results."""
    total_megabytes: float = 5000.0
    """All files of all visitors."""
    visitor_files: int = 200
    """Uploads and results of a visitor that are kept at a time."""
    total_files: int = 4000
    """Uploads and results of all visitors."""
    waiting: int = 24
    """Jobs that may wait in a queue."""
    visitor_waiting: int = 6
    """Jobs of one visitor that may wait in a queue: one for each tab of the page, and one more."""
