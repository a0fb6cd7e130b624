"""Search for the best matches of every query position."""

from __future__ import annotations

from patchattn.matching.majority import majority_vote
from patchattn.matching.match import match

__all__ = ["majority_vote", "match"]
