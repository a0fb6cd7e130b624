"""The names of what is built in, as the arguments of functions and the options of commands take them."""

from __future__ import annotations

from typing import Literal

__all__ = ["PACKAGE", "Backend", "Causality", "Method", "PaddingMode", "SimilarityName"]

PACKAGE = __name__.partition(".")[0]
"""The package's own name, and the namespace of its operators; `patchattn`, unless a copy is imported under another."""

Method = Literal["auto", "exact", "guided", "patchmatch", "repeated"]
PaddingMode = Literal["reflect", "replicate", "zeros", "valid"]
SimilarityName = Literal["l2", "dot", "scaled_dot", "cosine", "l1"]
Backend = Literal["reference", "cpu", "gpu"]
Causality = bool | Literal["strict"]
"""`"strict"`: a query does not match the key at its own position either."""
