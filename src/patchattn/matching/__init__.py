"""Search for the best matches of every query position."""

from __future__ import annotations

from patchattn.matching.match import match

__all__ = ["match"]
