"""The search methods by name, with their defaults, and the choice that "auto" makes.

Part of the operator and not of the functions that call it: in a graph made once for many sizes, the choice is made
anew in every call.
"""

from __future__ import annotations

from math import prod
from typing import get_args

from patchattn.checks import check_choice, check_count
from patchattn.problem import Problem
from patchattn.settings import Method

__all__ = ["METHODS", "check_method", "resolve_method", "whole_rows_are_faster"]

METHODS: tuple[Method, ...] = get_args(Method)

DEFAULT_ITERATIONS = {"guided": 2, "patchmatch": 5, "repeated": 5}

EXACT_BELOW = 1024
"""Keys up to which "auto" searches exactly: about as fast as guided there, and without error (docs/performance.md)."""


MANY = 32
"""`whole_rows_are_faster` from k^2 * scans = so many times the number of keys on (docs/performance.md)."""


def whole_rows_are_faster(k: int, keys: int, scans: int, by_products: bool) -> bool:
    """Whether exact search, which computes and sorts whole rows of similarities, is faster than guided search's lists.

    A row takes time in proportion to the keys, lists in proportion to k^2 and the scans. `by_products`: see `Problem`.
    """
    return by_products and k * k * scans >= MANY * keys


def check_method(method: str, iterations: int | None) -> int | None:
    """Check what can be given to `resolve_method`, and return the iterations as a Python number."""
    check_choice("method", method, METHODS)
    return None if iterations is None else check_count("iterations", iterations, 0)


def resolve_method(problem: Problem, query_size: tuple[int, ...], key_size: tuple[int, ...]) -> tuple[str, int]:
    """Return the method and its number of iterations (0 for the exact search, which has none)."""
    strategy, constraints, keys = problem.strategy, problem.constraints, prod(key_size)
    method = strategy.method
    if method == "auto":
        if strategy.exact_pairs is None:
            few = keys <= EXACT_BELOW
        else:
            few = prod(query_size) * keys <= strategy.exact_pairs
        if few:
            method = "exact"
        elif not constraints.is_causal:
            method = "guided"
        elif whole_rows_are_faster(problem.k, keys, DEFAULT_ITERATIONS["guided"], problem.by_products):
            method = "exact"
        else:
            # The guided search's tree is made of all keys, later ones too. A list whose matches must be apart loses
            # good ones to better ones beside them; runs for one match each do not.
            method = "repeated" if constraints.separated else "patchmatch"
    if method == "guided":
        count = DEFAULT_ITERATIONS[method] if strategy.scans is None else strategy.scans
        if whole_rows_are_faster(problem.k, keys, count, problem.by_products):
            method = "exact"
    if method == "exact":
        return method, 0
    given = strategy.scans if method == "guided" else strategy.iterations
    return method, DEFAULT_ITERATIONS[method] if given is None else given
