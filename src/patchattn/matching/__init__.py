"""Finding the field."""

from __future__ import annotations

from patchattn.matching.match import match

__all__ = ["match"]
