"""Fields as masks over blocks of tokens: plain, and those of FlexAttention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask, flex_attention

from patchattn import MatchField, attend_at, block_mask, flex_block_mask, hilbert_order
from tests.cases import PAIRS, Pair, normals, random_index

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"multiples": Pair((4, 4), (2, 16), (1, 1), heads=2), "any": Pair((3, 5), (7, 3), (1, 1), heads=2)}


def field_of(pair: Pair, k: int = 2) -> MatchField:
    index = random_index(pair, k)
    return MatchField(index, torch.zeros(index.shape), pair.key)


def orders(pair: Pair, ordered: bool) -> dict[str, Tensor]:
    return {"query_order": hilbert_order(pair.query), "key_order": hilbert_order(pair.key)} if ordered else {}


def pairs_of(field: MatchField, orders: dict[str, Tensor]) -> Tensor:
    """Which keys each query matches, as bool `(batch, heads, n, m)` with tokens in order."""
    index = field.token_index().long()
    mask = torch.zeros(*index.shape[:3], field.key_count + 1, dtype=torch.bool)
    mask.scatter_(3, torch.where(index < 0, field.key_count, index), True)
    mask = mask[..., :-1]
    return mask[:, :, orders["query_order"]][..., orders["key_order"]] if orders else mask


def any_of_blocks(pairs: Tensor, rows: int, columns: int) -> Tensor:
    padded = torch.nn.functional.pad(pairs, (0, -pairs.shape[3] % columns, 0, -pairs.shape[2] % rows))
    return padded.unflatten(3, (-1, columns)).unflatten(2, (-1, rows)).any(5).any(3)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", ["1d", "2d_sizes", "3d_sizes"])
@pytest.mark.parametrize("block_size", [(128, 64), (4, 8), 5])
def test_blocks_with_a_match(name: str, block_size: Any, ordered: bool) -> None:
    pair = PAIRS[name]
    field, order = field_of(pair), orders(pair, ordered)
    found = block_mask(field, block_size, **order)
    expected = any_of_blocks(pairs_of(field, order), *(block_size if isinstance(block_size, tuple) else (5, 5)))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("matches_only", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_flex_masks_hold_the_pairs_that_count(name: str, ordered: bool, matches_only: bool) -> None:
    pair = SIZES[name]
    field, order = field_of(pair), orders(pair, ordered)
    mask = flex_block_mask(field, (4, 8), matches_only=matches_only, **order)
    pairs = pairs_of(field, order)
    blocks = any_of_blocks(pairs, 4, 8)
    n, m = pairs.shape[2:]
    whole = blocks.repeat_interleave(4, 2).repeat_interleave(8, 3)[:, :, :n, :m]
    assert torch.equal(create_mask(mask.mask_mod, 2, 2, n, m, device="cpu"), pairs if matches_only else whole)
    assert torch.equal(mask.to_dense().bool(), blocks)  # its blocks, counted by itself
    assert mask.seq_lengths == (n, m)
    full = 0 if matches_only else blocks[:, :, : n // 4, : m // 8].sum()
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks.sum() == full


def test_flex_attention_to_the_matches_is_attend_at() -> None:
    pair = SIZES["any"]
    field = field_of(pair, k=3)
    index = field.token_index().clone()
    for place in (1, 2):  # FlexAttention counts a key once, and without one returns 0 as well
        index[..., place].masked_fill_((index[..., place : place + 1] == index[..., :place]).any(3), -1)
    field = MatchField.from_token_index(index, pair.query, pair.key)
    query, key, value = normals(2, 2, 15, 4), normals(2, 2, 21, 4, seed=1), normals(2, 2, 21, 4, seed=2)
    mask = flex_block_mask(field, 4, matches_only=True)
    found = flex_attention(query, key, value, block_mask=mask)
    torch.testing.assert_close(found, attend_at(query, key, value, field.token_index()))


def test_no_match_is_no_block() -> None:
    field = MatchField(torch.full((1, 1, 2, 3, 4), -1, dtype=torch.int32), torch.zeros(1, 1, 2, 3, 4), (5, 6))
    assert not block_mask(field, (4, 4)).any()
    assert flex_block_mask(field, 4).sparsity() == 100


@pytest.mark.parametrize("name", ["1d", "2d_sizes", "3d"])
def test_to_tokens_and_back(name: str) -> None:
    pair = PAIRS[name]
    field = MatchField(random_index(pair, 3), normals(pair.batch, pair.heads, 3, *pair.query), pair.key)
    index = field.token_index()
    flat = field.index.flatten(3)
    assert index.is_contiguous()
    assert all(torch.equal(index[..., m], flat[:, :, m]) for m in range(3))
    similarity = field.similarity.flatten(3).transpose(2, 3)
    again = MatchField.from_token_index(index.long(), pair.query, pair.key, similarity)
    assert torch.equal(again.index, field.index)
    assert torch.equal(again.similarity, field.similarity)
    unknown = MatchField.from_token_index(index, pair.query, pair.key).similarity
    assert torch.equal(unknown.isnan(), field.index >= 0)
    assert (unknown[field.index < 0] == -torch.inf).all()


def test_an_index_out_of_range_stays_so() -> None:
    field = MatchField.from_token_index(torch.tensor([2**40 + 1, -7]).view(1, 1, 2, 1), (2,), (4,))
    assert field.index.flatten().tolist() == [2**31 - 1, -2]


@pytest.mark.parametrize("size", [(16,), (8, 8), (32, 32), (4, 4, 4), (2, 2, 2, 2)])
def test_a_hilbert_curve_steps_from_neighbor_to_neighbor(size: tuple[int, ...]) -> None:
    order = hilbert_order(size)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(order.numel()))
    at = torch.stack(torch.unravel_index(order, size))
    assert (at.diff(dim=1).abs().sum(0) == 1).all()


@pytest.mark.parametrize("size", [(1,), (3, 5), (1, 7), (5, 1, 6)])
def test_an_order_of_any_size(size: tuple[int, ...]) -> None:
    order = hilbert_order(size)
    assert torch.equal(order.sort().values, torch.arange(torch.Size(size).numel()))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: block_mask(f.index), "field: expected a MatchField, got Tensor"),
        (lambda f: block_mask(f, 0), "block_size: expected an integer of at least 1"),
        (lambda f: block_mask(f, query_order=torch.arange(3)), r"query_order: .* \(15,\), .*got torch.int64 \(3,\)"),
        (lambda f: flex_block_mask(f, key_order=torch.zeros(21)), r"key_order: .* \(21,\), .*got torch.float32 \(21,"),
        (lambda f: hilbert_order((4, 0)), "size: expected an integer of at least 1"),
        (lambda f: MatchField.from_token_index(f.index, (3, 5), (7, 3)), r"index: expected int32 or int64 \(B, heads"),
        (lambda f: MatchField.from_token_index(f.token_index().float(), (3, 5), (7, 3)), "index: .* got torch.float32"),
        (
            lambda f: MatchField.from_token_index(f.token_index(), (3, 5), (7, 3), f.similarity),
            r"similarity: expected floating-point numbers of the index's shape \(2, 2, 15, 2\)",
        ),
    ],
)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call(field_of(SIZES["any"]))
