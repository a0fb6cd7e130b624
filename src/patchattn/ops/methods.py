"""The search methods by name, with their defaults, and the choice that "auto" makes.

Part of the operator and not of the functions that call it: in a graph made once for many sizes, the choice is made
anew in every call.
"""

from __future__ import annotations

from math import prod

from patchattn.checks import check_count
from patchattn.kernels.parameters import PROPAGATION_DISTANCES
from patchattn.problem import Problem
from patchattn.search_methods import SearchMethod, find_method, method_name, register_method

__all__ = ["check_method", "resolve_method", "whole_rows_are_faster"]

EXACT_BELOW = 1024
"""Keys up to which "auto" searches exactly: about as fast as guided there, and without error (docs/performance.md)."""

SCANS = 2
"""Scans of the guided search where none are asked for."""

NEIGHBORS = 2 * len(PROPAGATION_DISTANCES)
"""That PatchMatch asks in each dimension and iteration: two at each distance."""

MANY = 32
"""`whole_rows_are_faster` from k^2 * scans = so many times the number of keys on (docs/performance.md)."""


def whole_rows_are_faster(k: int, keys: int, scans: int, by_products: bool) -> bool:
    """Whether exact search, which computes and sorts whole rows of similarities, is faster than guided search's lists.

    A row takes time in proportion to the keys, lists in proportion to k^2 and the scans. `by_products`: see `Problem`.
    """
    return by_products and k * k * scans >= MANY * keys


def check_method(method: str | SearchMethod, iterations: int | None) -> tuple[str, int | None]:
    """Return the method's name and the iterations as a Python number, if there is such a search."""
    return method_name(method), None if iterations is None else check_count("iterations", iterations, 0)


def resolve_method(
    problem: Problem, query_size: tuple[int, ...], key_size: tuple[int, ...]
) -> tuple[SearchMethod, int]:
    """Return the method and its number of iterations (0 if it has none, as the exact search)."""
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
        elif whole_rows_are_faster(problem.k, keys, SCANS, problem.by_products):
            method = "exact"
        else:
            # The guided search's tree is made of all keys, later ones too. A list whose matches must be apart loses
            # good ones to better ones beside them; runs for one match each do not.
            method = "repeated" if constraints.separated else "patchmatch"
    if method == "guided":
        count = SCANS if strategy.scans is None else strategy.scans
        if whole_rows_are_faster(problem.k, keys, count, problem.by_products):
            method = "exact"
    chosen = find_method(method)
    if chosen.iterations is None:
        return chosen, 0
    given = strategy.scans if method == "guided" else strategy.iterations
    return chosen, chosen.iterations if given is None else given


def _compared_by_patchmatch(problem: Problem, query: tuple[int, ...], key: tuple[int, ...], iterations: int) -> int:
    """All that it may ask neighbors for, and draw."""
    return problem.k + iterations * (NEIGHBORS * len(key) * problem.k + max(key).bit_length())


def _compared_by_repeated(problem: Problem, query: tuple[int, ...], key: tuple[int, ...], iterations: int) -> int:
    return problem.k * (1 + iterations * (NEIGHBORS * len(key) + max(key).bit_length()))


register_method("auto", {})
register_method("exact", {}, compared=lambda problem, query, key, iterations: prod(key))
register_method("guided", {}, iterations=SCANS)
register_method("patchmatch", {}, iterations=5, compared=_compared_by_patchmatch)
register_method("repeated", {}, iterations=5, compared=_compared_by_repeated)
