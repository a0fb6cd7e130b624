"""Prepared keys are kept while a block lasts, and are never those of another key."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import match
from patchattn.kernels.cpu import prepared_keys
from patchattn.reuse import keep_prepared_keys
from tests.cases import mask, photograph

SETTINGS: dict[str, Any] = {"k": 2, "patch_size": 5, "method": "guided", "backend": "cpu"}

pytestmark = pytest.mark.needs("cpu")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for every tree that is made."""
    trees: list[int] = []
    build = prepared_keys.build_tree

    def count(*arguments: Any) -> Any:
        trees.append(1)
        return build(*arguments)

    monkeypatch.setattr(prepared_keys, "build_tree", count)
    return trees


def images() -> tuple[list[Tensor], Tensor]:
    queries = [photograph("astronaut", slice(row, row + 40), slice(150, 210)) for row in (60, 80, 100)]
    return queries, photograph("coffee", slice(60, 130), slice(100, 190))


@pytest.mark.parametrize("similarity", ["l2", "dot", "cosine"])
def test_one_tree_serves_many_searches_and_changes_nothing(built: list[int], similarity: str) -> None:
    queries, key = images()
    settings = {**SETTINGS, "similarity": similarity}
    expected = [match(query, key, **settings) for query in queries]
    assert len(built) == 3
    with keep_prepared_keys():
        found = [match(query, key, **settings) for query in queries]
    assert len(built) == 4
    for field, other in zip(found, expected, strict=True):
        assert torch.equal(field.index, other.index)
        assert torch.equal(field.similarity, other.similarity)
    match(queries[0], key, **settings)
    assert len(built) == 5, "nothing is kept after the block"


def test_queries_beyond_the_scale_get_a_tree_of_their_own(built: list[int]) -> None:
    queries, key = images()
    far = 100 * queries[0]
    expected = match(far, key, **SETTINGS)
    with keep_prepared_keys():
        match(queries[0], key, **SETTINGS)
        found = match(far, key, **SETTINGS)
        again = match(queries[0], key, **SETTINGS)
    assert len(built) == 3  # of `expected`, and two
    assert torch.equal(found.index, expected.index)
    assert torch.equal(again.index, match(queries[0], key, **SETTINGS).index)


def test_what_changes_the_keys_makes_another_tree(built: list[int]) -> None:
    queries, key = images()
    allowed = mask(1, *key.shape[2:], share=0.5)
    with keep_prepared_keys():
        match(queries[0], key, **SETTINGS)
        match(queries[0], key, **{**SETTINGS, "patch_size": 3})
        match(queries[0], key, key_mask=allowed, **SETTINGS)
        match(queries[0], key.flip(3), **SETTINGS)
        assert len(built) == 4
        key[:] = key.flip(2)
        found = match(queries[0], key, **SETTINGS)
        assert len(built) == 5
        allowed[:] = True
        match(queries[0], key, key_mask=allowed, **SETTINGS)
        assert len(built) == 6
    assert torch.equal(found.index, match(queries[0], key, **SETTINGS).index)


def test_nothing_is_kept_of_tensors_whose_changes_are_not_told(built: list[int]) -> None:
    queries, key = images()
    with torch.inference_mode(), keep_prepared_keys():
        made_here = key.clone()
        match(queries[0], made_here, **SETTINGS)
        made_here.copy_(key.flip(2))
        found = match(queries[0], made_here, **SETTINGS)
    assert len(built) == 2
    assert torch.equal(found.index, match(queries[0], key.flip(2), **SETTINGS).index)


def test_each_item_of_a_batch_has_its_own(built: list[int]) -> None:
    queries, key = images()
    query, keys = torch.cat(queries), torch.cat([key, key.flip(2), key.flip(3)])
    expected = match(query, keys, **SETTINGS)
    built.clear()
    with keep_prepared_keys():
        found = [match(query, keys, **SETTINGS) for _ in range(2)]
    assert len(built) >= 3
    for field in found:
        assert torch.equal(field.index, expected.index)
