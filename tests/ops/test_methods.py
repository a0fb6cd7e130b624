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
    assert resolve_method(method, 7, 3, exact_pairs, size, size, is_causal, separated) == expected


def test_defaults() -> None:
    sizes = (9,), (9,)
    assert resolve_method("guided", None, None, None, *sizes, False, False) == ("guided", 2)
    assert resolve_method("repeated", None, None, None, *sizes, False, False) == ("repeated", 5)
