"""The search methods by name, with their defaults, and the choice that "auto" makes.

Part of the operator and not of the functions that call it: in a graph made once for many sizes, the choice is made
anew in every call.
"""

from __future__ import annotations

from math import prod

from patchattn.checks import check_choice, check_count

__all__ = ["METHODS", "check_method", "resolve_method", "whole_rows_are_faster"]

METHODS = ("auto", "exact", "guided", "patchmatch", "repeated")

DEFAULT_ITERATIONS = {"guided": 2, "patchmatch": 5, "repeated": 5}

EXACT_BELOW = 1024
"""Keys up to which "auto" searches exactly: about as fast as guided there, and without error (docs/performance.md)."""


MANY = 32
"""`whole_rows_are_faster` from k^2 * scans = so many times the number of keys on (docs/performance.md)."""


def whole_rows_are_faster(k: int, keys: int, scans: int, by_products: bool) -> bool:
    """Whether exact search, which computes and sorts whole rows of similarities, is faster than guided search's lists.

    A row takes time in proportion to the keys, lists in proportion to k^2 and the scans. `by_products`: matrix products
    tell the similarities, and neither a separation nor a window leaves out most keys.
    """
    return by_products and k * k * scans >= MANY * keys


def check_method(method: str, iterations: int | None) -> int | None:
    """Check what can be given to `resolve_method`, and return the iterations as a Python number."""
    check_choice("method", method, METHODS)
    return None if iterations is None else check_count("iterations", iterations, 0)


def resolve_method(
    method: str, iterations: int | None, scans: int | None, exact_pairs: int | None, query_size: tuple[int, ...],
    key_size: tuple[int, ...], is_causal: bool, separated: bool, k: int, by_products: bool,
) -> tuple[str, int]:  # fmt: skip
    """Return the method and its number of iterations (0 for the exact search, which has none).

    Args:
        iterations: of PatchMatch; None: the default.
        scans: of the guided search; None: the default.
        exact_pairs: pairs of a query and a key up to which "auto" is exact; None: it goes by the keys.
        by_products: see `whole_rows_are_faster`.
    """
    if method == "auto":
        if exact_pairs is None:
            few = prod(key_size) <= EXACT_BELOW
        else:
            few = prod(query_size) * prod(key_size) <= exact_pairs
        if few:
            method = "exact"
        elif not is_causal:
            method = "guided"
        elif whole_rows_are_faster(k, prod(key_size), DEFAULT_ITERATIONS["guided"], by_products):
            method = "exact"
        else:
            # The guided search's tree is made of all keys, later ones too. A list whose matches must be apart loses
            # good ones to better ones beside them; runs for one match each do not.
            method = "repeated" if separated else "patchmatch"
    if method == "guided":
        count = DEFAULT_ITERATIONS[method] if scans is None else scans
        if whole_rows_are_faster(k, prod(key_size), count, by_products):
            method = "exact"
    if method == "exact":
        return method, 0
    given = scans if method == "guided" else iterations
    return method, DEFAULT_ITERATIONS[method] if given is None else given
