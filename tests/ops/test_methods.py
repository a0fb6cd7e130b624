"""The choice of a search by sizes."""

from __future__ import annotations

import pytest

from patchattn.ops.methods import resolve_method


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
    assert resolve_method(method, 7, 3, exact_pairs, size, size, is_causal, separated, 3, True) == expected


def test_defaults() -> None:
    sizes = (9,), (9,)
    assert resolve_method("guided", None, None, None, *sizes, False, False, 1, True) == ("guided", 2)
    assert resolve_method("repeated", None, None, None, *sizes, False, False, 1, True) == ("repeated", 5)


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
    assert resolve_method(method, None, scans, None, size, size, False, False, k, by_products)[0] == expected
