"""Search for the best matches of every query position."""

from __future__ import annotations

from patchattn.matching.majority import majority_vote
from patchattn.matching.match import match
from patchattn.matching.prepared_key import PreparedKey, prepare

__all__ = ["PreparedKey", "majority_vote", "match", "prepare"]
