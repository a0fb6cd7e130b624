"""Products of patches as sums of products of pixels: the same matches as from patches multiplied one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn import MatchField, match
from patchattn.kernels.cpu import exact, summed_products
from tests.cases import integers, mask, normals

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = {
    "1-D": ((23,), (29,), 5),
    "2-D": ((9, 12), (11, 7), (5, 3)),
    "a row": ((7, 10), (8, 9), (1, 5)),
    "a column": ((7, 10), (8, 9), (5, 1)),
    "3-D": ((4, 5, 6), (5, 4, 7), 3),
    "two of three dimensions": ((4, 5, 6), (5, 4, 7), (3, 1, 3)),
    "three others": ((4, 6, 5), (4, 5, 6), (1, 3, 3)),
}


@pytest.fixture(params=[None, 1], ids=["whole", "in boxes"])
def boxes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have pixels' products summed, in one box of queries or in the smallest ones; a list of their sizes."""
    sizes: list[int] = []

    def spy(*arguments: Any) -> Any:
        for block in summed_products.summed_blocks(*arguments):
            sizes.append(block.positions.shape[1])
            yield block

    monkeypatch.setattr(exact, "is_small", lambda *_: False)
    monkeypatch.setattr(exact, "SUMS", 0)
    monkeypatch.setattr(exact, "summed_blocks", spy)
    if request.param is not None:
        monkeypatch.setattr(summed_products, "BYTES", request.param)
    return sizes


def assert_same(found: MatchField, expected: MatchField) -> None:
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.similarity, expected.similarity)


@pytest.mark.every_pair
@pytest.mark.parametrize("padding", ["zeros", "replicate", "reflect"])
@pytest.mark.parametrize("similarity", ["l2", "dot"])
@pytest.mark.parametrize("name", SHAPES)
def test_matches_are_those_of_the_reference(name: str, similarity: str, padding: str, boxes: list[int]) -> None:
    queries, keys, patch = SHAPES[name]
    query, key = integers(2, 4, *queries).float(), integers(2, 4, *keys, seed=1).float()
    settings: dict[str, Any] = {"patch_size": patch, "padding_mode": padding, "similarity": similarity}
    settings |= {"num_heads": 2, "method": "exact"}
    for k in (2, 12):  # lists, and whole rows
        field = match(query, key, k=k, **settings, backend="cpu")
        assert_same(field, match(query, key, k=k, **settings, backend="reference"))
    assert boxes


@pytest.mark.every_pair
@pytest.mark.parametrize("k", [2, 12])
@pytest.mark.parametrize("similarity", ["l2", "scaled_dot", "cosine"])
@pytest.mark.parametrize("is_causal", [False, True])
def test_constraints(similarity: str, k: int, is_causal: bool, boxes: list[int]) -> None:
    size = (9, 8)
    query, key = normals(3, 6, *size).float(), normals(3, 6, *size, seed=1).float()
    masks = {"query_mask": mask(3, *size, share=0.9), "key_mask": mask(3, *size, share=0.9)}
    key[~masks["key_mask"][:, None].expand_as(key)] = float("nan")
    settings: dict[str, Any] = {"k": k, "patch_size": 3, "num_heads": 2, "method": "exact", "similarity": similarity}
    found = match(query, key, **settings, **masks, is_causal=is_causal, backend="cpu")
    assert boxes
    expected = match(query, key, **settings, **masks, is_causal=is_causal, backend="reference")
    assert torch.equal(found.index, expected.index)
    torch.testing.assert_close(found.similarity, expected.similarity, rtol=2e-7, atol=0)


@pytest.mark.every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("similarity", ["l2", "dot", "cosine"])
def test_products_are_within_their_bound(
    similarity: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, boxes: list[int]
) -> None:
    # Far from 0, where sums lose most: both ways find the same, by proof.
    def one(*size: int, seed: int) -> Tensor:
        return (300 + normals(1, 3, *size, seed=seed)).to(dtype)

    query, key = one(21, 18, seed=0), one(19, 23, seed=1)
    settings: dict[str, Any] = {"k": 3, "patch_size": 5, "similarity": similarity, "method": "exact", "backend": "cpu"}
    found = match(query, key, **settings)
    assert boxes
    monkeypatch.setattr(exact, "SUMS", 1000)
    assert_same(found, match(query, key, **settings))


def test_sparse_queries_are_multiplied(boxes: list[int]) -> None:
    asked = torch.zeros(1, 12, 12, dtype=torch.bool)
    asked[0, 5, 5:7] = True
    image = normals(1, 3, 12, 12).float()
    match(image, image, k=2, patch_size=3, method="exact", query_mask=asked, backend="cpu")
    assert not boxes


@pytest.mark.parametrize("factor", [1e-14, 1e14])
def test_norms_that_sums_for_the_cosine_cannot_hold(factor: float, boxes: list[int]) -> None:
    query, key = normals(1, 3, 9, 8).float(), normals(1, 3, 8, 9, seed=1).float()
    settings: dict[str, Any] = {"k": 2, "patch_size": 3, "similarity": "cosine", "method": "exact", "backend": "cpu"}
    expected = match(query, key, **settings)
    boxes.clear()
    found = match(query * factor, key, **settings)
    assert not boxes
    assert torch.equal(found.index, expected.index)
