"""Operator `patchattn::search`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.ops.search import search
from patchattn.problem import Constraints, Problem, Strategy
from tests.cases import (
    PAIRS,
    SAME_SIZE,
    Pair,
    check_operator,
    fewer,
    geometry,
    integers,
    mask,
    normals,
    random_index,
    strided,
)

pytestmark = pytest.mark.usefixtures("poisoned_memory", "one_thread")

TINY = {"1d": Pair((5,), (5,), (3,), heads=2), "3d": Pair((2, 2, 2), (2, 2, 2), (3, 3, 1), heads=2)}
"""For gpu: `opcheck` runs an operator a dozen times, whatever the size."""


def arguments(query: Tensor, key: Tensor, backend: str, **changed: Any) -> tuple[Any, ...]:
    dims = query.dim() - 2
    defaults: dict[str, Any] = {
        "query_mask": None,
        "key_mask": None,
        "init": None,
        "k": 2,
        "patch_size": [3] * dims,
        "padding_mode": "reflect",
        "num_heads": 1,
        "similarity": "l2",
        "method": "exact",
        "iterations": 2 if backend == "cpu" else 1,  # the others go from query to query in Python
        "scans": 1,
        "exact_pairs": None,
        "seed": 0,
        "is_causal": False,
        "strict": False,
        "min_separation": [0] * dims,
        "max_offset": None,
        "backend": backend,
    }
    assert changed.keys() <= defaults.keys()
    s = defaults | changed
    patches = geometry(s["patch_size"], s["padding_mode"], s["num_heads"], s["similarity"])
    constraints = Constraints(
        s["query_mask"], s["key_mask"], s["is_causal"], tuple(s["min_separation"]), s["max_offset"], s["strict"]
    )
    strategy = Strategy(s["method"], s["iterations"], s["scans"], s["exact_pairs"], s["seed"])
    return (query, key, s["init"], Problem(s["k"], patches, constraints, strategy, s["backend"]))


@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch", "repeated"])
def test_known_answer(backend: str, method: str) -> None:
    query = torch.tensor([[[0.0, 10.0, 20.0, 30.0]]])
    key = torch.tensor([[[31.0, 9.0, 1.0, 22.0, 19.0]]])
    index, similarity = search(*arguments(query, key, backend, patch_size=[1], method=method, iterations=2))
    assert index.tolist() == [[[[2, 1, 4, 0], [1, 2, 3, 3]]]]
    assert similarity.tolist() == [[[[-1, -1, -1, -1], [-81, -81, -4, -64]]]]


@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch", "repeated"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_opcheck(backend: str, method: str, dtype: torch.dtype) -> None:
    pair = PAIRS["2d_sizes"].on(backend)
    query, key = (x.to(dtype) for x in pair.features(normals))
    check_operator(search, arguments(query, key, backend, method=method, num_heads=pair.heads))


@pytest.mark.parametrize("method", ["guided", "patchmatch", "repeated"])
@pytest.mark.parametrize("name", ["1d", "3d"])
def test_opcheck_with_everything(backend: str, name: str, method: str) -> None:
    pair = fewer(backend, PAIRS[name], TINY[name])
    query, key = pair.features(normals)
    settings: dict[str, Any] = {
        "query_mask": mask(1, *pair.query, share=0.8),
        "key_mask": mask(pair.batch, *pair.key, share=0.8),
        "init": random_index(pair, 3),
        "num_heads": pair.heads,
        "method": method,
        "is_causal": name in SAME_SIZE,
        "strict": name in SAME_SIZE and method == "repeated",
        "min_separation": [2] * pair.dims,
        "max_offset": [3] * pair.dims,
    }
    check_operator(search, arguments(query, key, backend, **settings))


@pytest.mark.parametrize("method", ["exact", "guided", "patchmatch", "repeated"])
@pytest.mark.parametrize("name", PAIRS)
def test_strides_do_not_matter(backend: str, method: str, name: str) -> None:
    pair = PAIRS[name].on(backend)
    query, key = pair.features(integers)
    init, key_mask = random_index(pair, 2), mask(1, *pair.key, share=0.7)
    settings: dict[str, Any] = {"num_heads": pair.heads, "method": method}
    expected = search(*arguments(query, key, backend, init=init, key_mask=key_mask, **settings))
    found = search(
        *arguments(strided(query), strided(key), backend, init=strided(init), key_mask=strided(key_mask), **settings)
    )
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert all(x.is_contiguous() for x in found)


def test_inputs_stay_as_they_are(backend: str) -> None:
    pair = PAIRS["2d_shared"]
    query, key = pair.features(normals)
    init, key_mask = random_index(pair, 2), mask(1, *pair.key, share=0.7)
    before = [x.clone() for x in (query, key, init, key_mask)]
    search(*arguments(query, key, backend, init=init, key_mask=key_mask, method="patchmatch"))
    assert all(torch.equal(x, y) for x, y in zip((query, key, init, key_mask), before, strict=True))
