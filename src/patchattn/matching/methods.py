"""The search methods by name, with their defaults, and the choice that "auto" makes."""

from __future__ import annotations

from math import prod

from patchattn.checks import check_choice, check_count

__all__ = ["METHODS", "resolve_method", "whole_rows_are_faster"]

METHODS = ("auto", "exact", "guided", "patchmatch", "repeated")

DEFAULT_ITERATIONS = {"guided": 2, "patchmatch": 5, "repeated": 5}

EXACT_BELOW = 1024
"""Keys up to which "auto" searches exactly: about as fast as guided there, and without error (docs/performance.md)."""


MANY = 32
"""`whole_rows_are_faster` from k^2 * iterations = so many times the number of keys on (docs/performance.md)."""


def whole_rows_are_faster(k: int, keys: int, iterations: int, by_products: bool) -> bool:
    """Whether exact search, which computes and sorts whole rows of similarities, is faster than guided search's lists.

    A row takes time in proportion to the keys, lists in proportion to k^2 and the iterations. `by_products`: matrix
    products tell the similarities, and neither a separation nor a window leaves out most keys.
    """
    return by_products and k * k * iterations >= MANY * keys


def resolve_method(
    method: str,
    iterations: int | None,
    key_size: tuple[int, ...],
    is_causal: bool,
    separated: bool,
    k: int = 1,
    by_products: bool = False,
) -> tuple[str, int]:
    """Return the method and its number of iterations (0 for the exact search, which has none).

    The sizes and settings alone decide; see `match` for the rules, `whole_rows_are_faster` for `by_products`.
    """
    check_choice("method", method, METHODS)
    if iterations is not None:
        check_count("iterations", iterations, 0)
    if method == "auto":
        if prod(key_size) <= EXACT_BELOW:
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
        scans = DEFAULT_ITERATIONS[method] if iterations is None else iterations
        if whole_rows_are_faster(k, prod(key_size), scans, by_products):
            method = "exact"
    if method == "exact":
        return method, 0
    return method, DEFAULT_ITERATIONS[method] if iterations is None else iterations
