"""The choice of a search by sizes."""

from __future__ import annotations

from typing import Any

import pytest

from patchattn.ops.methods import resolve_method
from patchattn.problem import Constraints, PatchGeometry, Problem, Strategy
from patchattn.registry import METHODS
from patchattn.similarity import resolve_similarity


def problem(strategy: Strategy, k: int = 1, **constraints: Any) -> Problem:
    geometry = PatchGeometry((1, 1), "reflect", 1, resolve_similarity("l2"))
    return Problem(k, geometry, Constraints(**constraints), strategy, "cpu")


@pytest.mark.parametrize(("method", "exact_pairs", "side", "is_causal", "separated", "expected"), [
    ("auto", None, 32, False, False, ("exact", 0)),
    ("auto", None, 33, False, False, ("guided", 3)),
    ("auto", None, 33, True, False, ("patchmatch", 7)),
    ("auto", None, 33, True, True, ("repeated", 7)),
    ("auto", 33**4, 33, False, False, ("exact", 0)),
    ("auto", 33**4 - 1, 33, False, False, ("guided", 3)),
    ("guided", 33**4, 8, False, False, ("guided", 3)),
    ("exact", 0, 33, False, False, ("exact", 0)),
])  # fmt: skip
def test_known_choices(
    method: str, exact_pairs: int | None, side: int, is_causal: bool, separated: bool, expected: tuple[str, int]
) -> None:
    size = (side, side)
    found = problem(Strategy(method, 7, 3, exact_pairs), 3, is_causal=is_causal, min_separation=(2 * separated, 0))
    chosen, count = resolve_method(found, size, size)
    assert (chosen.name, count) == expected


def test_defaults() -> None:
    sizes = (9,), (9,)
    assert resolve_method(problem(Strategy("guided")), *sizes) == (METHODS.get("guided"), 2)
    assert resolve_method(problem(Strategy("repeated")), *sizes) == (METHODS.get("repeated"), 5)


@pytest.mark.parametrize(("method", "k", "scans", "by_products", "expected"), [
    ("guided", 159, 2, True, "guided"),
    ("guided", 160, 2, True, "exact"),
    ("auto", 161, None, True, "exact"),
    ("auto", 161, None, False, "guided"),
    ("guided", 161, 1, True, "guided"),
    ("patchmatch", 1600, 2, True, "patchmatch"),
])  # fmt: skip
def test_many_matches(method: str, k: int, scans: int | None, by_products: bool, expected: str) -> None:
    size = (40, 40)
    limited = {} if by_products else {"max_offset": (9, 9)}
    assert resolve_method(problem(Strategy(method, None, scans), k, **limited), size, size)[0].name == expected
