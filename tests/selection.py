"""Which combinations of parameters a test is run with: enough for every pair of values, not all."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from itertools import combinations_with_replacement
from typing import Any

import pytest

__all__ = ["backend_of", "covering", "without_repetition"]


def parameters_of(item: pytest.Item) -> dict[str, Any]:
    return item.callspec.params if hasattr(item, "callspec") else {}


def backend_of(item: pytest.Item) -> list[str]:
    return [str(value) for name, value in parameters_of(item).items() if name in ("backend", "compiled")]


def without_repetition(items: list[pytest.Item]) -> list[pytest.Item]:
    """Leave out combinations of parameters all whose pairs of values other combinations have too.

    For each backend by itself, and for tests marked `every_pair`. A fault in the kernels shows with one value (a
    similarity, a padding, a number of dimensions) or with two together: a test of three or more parameters runs through
    a part of the combinations that has every pair. For gpu it is every value, not every pair: an operation takes
    Triton's interpreter a tenth of a millisecond, however few numbers it is done with. The choice is the same one every
    time, and drawn by lot where it is free, lest one parameter change only where all others have their first value.
    """
    groups: dict[tuple[str, ...], list[pytest.Item]] = defaultdict(list)
    for item in items:
        backends = backend_of(item)
        if (backends or item.get_closest_marker("every_pair")) and not item.get_closest_marker("every_case"):
            groups[(item.nodeid.partition("[")[0], *backends)].append(item)
    kept = {item for own in groups.values() for item in covering(own)}
    reduced = {item for own in groups.values() for item in own}
    return [item for item in items if item in kept or item not in reduced]


def covering(items: list[pytest.Item]) -> list[pytest.Item]:
    """Some of the items, with all that the others cover; each time the one that covers most of what is left."""
    uncovered = {item: covered_by(item) for item in items}
    chosen = []
    while any(uncovered.values()):
        best = max(items, key=lambda item: (len(uncovered[item]), hashlib.sha256(item.nodeid.encode()).digest()))
        chosen.append(best)
        seen = uncovered[best]
        uncovered = {item: left - seen for item, left in uncovered.items()}
    return chosen


def covered_by(item: pytest.Item) -> frozenset[Any]:
    """The values of its parameters for gpu, the pairs of these values otherwise."""
    values = [("", ""), *sorted((name, repr(value)) for name, value in parameters_of(item).items())]
    return frozenset(values if "gpu" in backend_of(item) else combinations_with_replacement(values, 2))
