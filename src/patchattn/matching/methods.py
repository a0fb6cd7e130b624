"""The search methods by name, with their defaults, and the choice that "auto" makes."""

from __future__ import annotations

from math import prod

from patchattn.checks import check_choice, check_count

__all__ = ["METHODS", "resolve_method"]

METHODS = ("auto", "exact", "guided", "patchmatch", "repeated")

DEFAULT_ITERATIONS = {"guided": 2, "patchmatch": 5, "repeated": 5}

EXACT_BELOW = 1024
"""Keys up to which "auto" searches exactly: about as fast as guided there, and without error (docs/performance.md)."""


def resolve_method(
    method: str, iterations: int | None, key_size: tuple[int, ...], is_causal: bool, separated: bool
) -> tuple[str, int]:
    """Return the method and its number of iterations (0 for the exact search, which has none)."""
    check_choice("method", method, METHODS)
    if iterations is not None:
        check_count("iterations", iterations, 0)
    if method == "auto":
        if prod(key_size) <= EXACT_BELOW:
            method = "exact"
        elif not is_causal:
            method = "guided"
        else:
            # The guided search's tree is made of all keys, later ones too. A list whose matches must be apart loses
            # good ones to better ones beside them; runs for one match each do not.
            method = "repeated" if separated else "patchmatch"
    if method == "exact":
        return method, 0
    return method, DEFAULT_ITERATIONS[method] if iterations is None else iterations
