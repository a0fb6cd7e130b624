"""Exact search finds what float64 brute force finds, whatever the features' range, scale, offset and masked content."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchattn import MatchField, match
from tests.cases import integers, mask, normals

pytestmark = pytest.mark.usefixtures("one_thread")

PRODUCTS = ["l2", "dot", "scaled_dot", "cosine"]


def patches(image: Tensor, size: int) -> Tensor:
    """The patches of a single image, in float64: `(positions, elements)`."""
    padded = torch.nn.functional.pad(image.double(), (size // 2,) * 4, mode="reflect") if size > 1 else image.double()
    return torch.nn.functional.unfold(padded, size)[0].T


def brute_force(query: Tensor, key: Tensor, size: int, similarity: str) -> Tensor:
    """All similarities of two single images in float64, `(queries, keys)`; -inf instead of NaN."""
    q, k = patches(query, size), patches(key, size)
    if similarity == "l2":
        found = torch.stack([-((one - k) ** 2).sum(1) for one in q])
    elif similarity == "l1":
        found = torch.stack([-(one - k).abs().sum(1) for one in q])
    else:
        found = torch.stack([(one * k).sum(1) for one in q])
    if similarity == "scaled_dot":
        found = found / q.shape[1] ** 0.5
    if similarity == "cosine":
        found = found / (q.norm(dim=1, keepdim=True) * k.norm(dim=1)).where(found != 0, 1)
    return found.nan_to_num(-torch.inf, torch.inf, -torch.inf)


def assert_exact(field: MatchField, every: Tensor, terms: float) -> None:
    """The field's matches are as good as the best of `every`, to the last digits of float64 sums of such `terms`."""
    best = every.sort(1, descending=True).values[:, : field.k]
    index = field.index[0, 0].flatten(1).T.long()
    assert torch.equal(index >= 0, best > -torch.inf)
    found = torch.where(index >= 0, every.gather(1, index.clamp(min=0)), -torch.inf)
    torch.testing.assert_close(found, best, rtol=1e-13, atol=1e-13 * terms)
    similarity = field.similarity[0, 0].flatten(1).T
    torch.testing.assert_close(similarity, best.to(similarity.dtype), rtol=2e-7, atol=2e-7 * 1e-13 * terms + 2e-45)
    for row in index:
        assert row[row >= 0].unique().numel() == (row >= 0).sum()


@settings(max_examples=60)
@given(
    exponent=st.floats(-6, 6),
    offset=st.sampled_from([0.0, 1.0, 300.0, 1e6]),
    fill=st.sampled_from([0.0, 1e4, -1e6, 1e30, float("inf"), float("nan")]),
    outlier=st.sampled_from([None, 1e3, 1e6]),
    rounded=st.booleans(),
    similarity=st.sampled_from(PRODUCTS),
    size=st.sampled_from([1, 3]),
    k=st.sampled_from([1, 3, 8, 40]),
    dtype=st.sampled_from([torch.float32, torch.float32, torch.float64, torch.bfloat16]),
    backend=st.sampled_from(["cpu", "cpu", "cpu", "reference"]),
    seed=st.integers(0, 99),
)
def test_any_range_scale_offset_and_masked_content(
    exponent: float, offset: float, fill: float, outlier: float | None, rounded: bool, similarity: str, size: int,
    k: int, dtype: torch.dtype, backend: str, seed: int,
) -> None:  # fmt: skip
    query, key = normals(1, 2, 12, 11, seed=seed), normals(1, 2, 10, 13, seed=seed + 100)
    query, key = ((x.mul(3).round() if rounded else x) * 10**exponent + offset for x in (query, key))
    query, key = query.to(dtype), key.to(dtype)
    if outlier is not None:
        key[:, :, 2, 9] = outlier
    allowed = torch.ones(1, 10, 13, dtype=torch.bool)
    allowed[..., : 6 + size // 2] = False
    key[..., :6] = fill
    field = match(
        query, key, k=k, patch_size=size, similarity=similarity, method="exact", key_mask=allowed, backend=backend
    )
    every = brute_force(query, key, size, similarity).where(allowed.flatten(), -torch.inf)
    largest = max(float(x[x.isfinite()].abs().max()) for x in (query.double(), key[..., 6:].double()))
    terms = {"l2": 0.0, "cosine": 1.0}.get(similarity, 2 * size**2 * largest**2)
    assert_exact(field, every, terms)


@pytest.mark.parametrize("similarity", [*PRODUCTS, "l1"])
def test_one_large_key_and_an_offset(backend: str, similarity: str) -> None:
    query, key = normals(1, 3, 6, 5).float() + 1e4, normals(1, 3, 5, 7, seed=1).float() + 1e4
    key[:, :, 1, 2] = 1e6
    field = match(query, key, k=3, patch_size=3, similarity=similarity, method="exact", backend=backend)
    terms = 27e12 if "dot" in similarity else float(similarity == "cosine")
    assert_exact(field, brute_force(query, key, 3, similarity), terms)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("similarity", PRODUCTS)
def test_near_ties_in_several_blocks(similarity: str, k: int) -> None:
    # Thousands of keys whose order float32 products cannot tell, more than one block of them.
    key = 100 + 1e-3 * normals(1, 2, 64, 40).float()
    query = 100 + 1e-3 * normals(1, 2, 8, 9, seed=2).float()
    field = match(query, key, k=k, similarity=similarity, method="exact", backend="cpu")
    assert_exact(field, brute_force(query, key, 1, similarity), {"l2": 0.0, "cosine": 1.0}.get(similarity, 2e4))


def test_ties_come_in_order_of_position(backend: str) -> None:
    query, key = torch.full((1, 1, 3, 3), 0.3), torch.full((1, 1, 7, 9), 0.1)
    key[0, 0, 3, 3] = 0.2
    field = match(query, key, k=4, method="exact", backend=backend)
    assert (torch.tensor([30, 0, 1, 2]) == field.index.flatten(3)[0, 0].T).all()


@pytest.mark.parametrize("k", [9, 70, 143])
@pytest.mark.parametrize("similarity", PRODUCTS)
def test_many_matches(similarity: str, k: int) -> None:
    query, key = normals(1, 3, 10, 9).float(), normals(1, 3, 11, 13, seed=1).float()
    key[:, :, :4, :4] = query[:, :, :4, :4]
    field = match(query, key, k=k, patch_size=3, similarity=similarity, method="exact", backend="cpu")
    terms = 27 * 16.0 if "dot" in similarity else float(similarity == "cosine")
    assert_exact(field, brute_force(query, key, 3, similarity), terms)


@pytest.mark.parametrize("similarity", ["l2", "dot"])
@pytest.mark.parametrize("k", [12, 60, 99])
def test_many_matches_are_those_of_the_reference(similarity: str, k: int) -> None:
    query, key = (integers(3, 4, 10, 10, seed=seed).float() for seed in (0, 1))
    more: dict[str, Any] = {"k": k, "patch_size": 3, "similarity": similarity, "num_heads": 2, "method": "exact"}
    more |= {"is_causal": True, "key_mask": mask(3, 10, 10, share=0.8), "query_mask": mask(1, 10, 10, share=0.7)}
    found, expected = (match(query, key, **more, backend=backend) for backend in ("cpu", "reference"))
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.similarity, expected.similarity)


@pytest.mark.parametrize("k", [2, 30])
@pytest.mark.parametrize("shared", [False, True])
def test_items_do_not_depend_on_each_other(shared: bool, k: int) -> None:
    query, key = normals(5, 4, 8, 9).float(), normals(1 if shared else 5, 4, 9, 8, seed=1).float()
    query[3] *= 1e6
    allowed, asked = mask(5, 9, 8, share=0.5), mask(5, 8, 9, share=0.6)
    allowed[2] = False
    settings: dict[str, Any] = {"k": k, "patch_size": 3, "num_heads": 2, "method": "exact", "backend": "cpu"}
    together = match(query, key, key_mask=allowed, query_mask=asked, **settings)
    for b in range(5):
        of_key = slice(None) if shared else slice(b, b + 1)
        masks = {"key_mask": allowed[b : b + 1], "query_mask": asked[b : b + 1]}
        alone = match(query[b : b + 1], key[of_key], **masks, **settings)
        assert torch.equal(together.index[b : b + 1], alone.index)
        assert torch.equal(together.similarity[b : b + 1], alone.similarity)


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("k", [3, 20])
def test_causal_matches_do_not_depend_on_what_comes_later(k: int, value: float) -> None:
    features = (100 + normals(1, 2, 12, 12)).mul(8).round().div(8).float()  # many ties
    later = features.clone()
    later[:, :, 7:] = value
    before, after = (match(x, x, k=k, is_causal=True, method="exact", backend="cpu") for x in (features, later))
    assert torch.equal(before.index[..., :7, :], after.index[..., :7, :])
    assert torch.equal(before.similarity[..., :7, :], after.similarity[..., :7, :])


def test_lower_precision_of_products_is_not_used() -> None:
    query, key = normals(1, 3, 16, 16).float(), normals(1, 3, 16, 16, seed=1).float()
    settings: dict[str, Any] = {"k": 3, "patch_size": 3, "method": "exact", "backend": "cpu"}
    expected = match(query, key, **settings)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            found = match(query, key, **settings)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.similarity, expected.similarity)


def test_what_has_no_number_is_no_match(backend: str) -> None:
    query, key = torch.zeros(1, 1, 2, 2), torch.tensor([[[[3e30, 2.0], [float("nan"), 1.0]]]])
    field = match(query, key, k=4, method="exact", backend=backend)
    assert field.index[0, 0, :, 0, 0].tolist() == [3, 1, -1, -1]
    assert field.similarity[0, 0, :, 0, 0].tolist() == [-1, -4, -torch.inf, -torch.inf]
