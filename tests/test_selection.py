"""What is left of all combinations of parameters has every pair of values, or for gpu every value."""

from __future__ import annotations

from itertools import combinations, product
from types import SimpleNamespace
from typing import Any

from tests.selection import covering

VALUES: dict[str, list[Any]] = {"similarity": ["l2", "l1", "dot"], "padding": [len, max], "size": [1, 3, 5, 7]}
ALL = [dict(zip(VALUES, values, strict=True)) for values in product(*VALUES.values())]


class Item:
    """What is asked of a test that pytest has collected."""

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.nodeid = f"test{parameters}"
        self.callspec = SimpleNamespace(params=parameters)


def left(backend: str) -> list[dict[str, Any]]:
    items: list[Any] = [Item({**combination, "backend": backend}) for combination in ALL]
    return [{name: item.callspec.params[name] for name in VALUES} for item in covering(items)]


def pairs(combinations_left: list[dict[str, Any]]) -> set[Any]:
    return {pair for one in combinations_left for pair in combinations(one.items(), 2)}


def test_every_pair_is_left() -> None:
    for backend in ("cpu", "reference"):
        assert pairs(left(backend)) == pairs(ALL)
        assert 3 * 4 <= len(left(backend)) < len(ALL)


def test_every_value_is_left_for_gpu() -> None:
    assert {value for one in left("gpu") for value in one.items()} == {value for one in ALL for value in one.items()}
    assert len(left("gpu")) == 4


def test_a_test_without_parameters_stays() -> None:
    item: Any = Item({})
    assert covering([item]) == [item]
