"""Layers that see a part of all keys, against their dense definitions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from patchattn.baselines import LocalAttention, SparseAttention, full_attention, local_attention, sparse_attention
from tests.attention import dense
from tests.cases import TOLERANCE, mask, normals

SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "1d": ((23,), (17,)),
    "2d": ((11, 19), (11, 19)),
    "2d_sizes": ((9, 20), (18, 11)),
    "3d": ((3, 10, 9), (3, 10, 9)),
}
CLOSE = TOLERANCE[torch.float64]


def places(size: tuple[int, ...]) -> Tensor:
    """`(positions, dims)`."""
    return torch.cartesian_prod(*(torch.arange(n) for n in size)).view(-1, len(size))


def in_window(query: tuple[int, ...], key: tuple[int, ...], window: tuple[int, ...]) -> Tensor:
    """By the definition, with a query at the key's scale: bool `(queries, keys)`."""
    sizes, keys = torch.tensor(query), torch.tensor(key)
    home = ((2 * places(query) + 1) * keys) // (2 * sizes)
    offset = places(key)[None] - home[:, None]
    w = torch.tensor(window)
    return ((offset >= -(w // 2)) & (offset <= (w + 1) // 2 - 1)).all(-1)


def in_pattern(size: tuple[int, ...], pattern: str, summary: int) -> Tensor:
    row, column = places((*(torch.Size(size[:-1]).numel(),), size[-1])).unbind(1)
    far = column[None] == column[:, None] if pattern == "strided" else column[None] >= size[-1] - summary
    return (row[None] == row[:, None]) | far


@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot", "cosine"])
@pytest.mark.parametrize("name", SIZES)
def test_local_by_its_definition(name: str, similarity: str) -> None:
    query_size, key_size = SIZES[name]
    dims = len(query_size)
    window, patch = (6, 5, 4)[:dims], (3, 3, 1)[:dims]
    query, key = normals(2, 4, *query_size), normals(1, 4, *key_size, seed=1)
    value = normals(2, 6, *key_size, seed=2)
    found = local_attention(
        query, key, value, window=window, patch_size=patch, similarity=similarity, temperature=2.0, num_heads=2
    )
    allowed = in_window(query_size, key_size, window)
    expected = dense.attention(query, key, value, allowed, patch, similarity, 2.0, 2)
    torch.testing.assert_close(found, expected, **CLOSE)
    layer = LocalAttention(window=window, patch_size=patch, similarity=similarity, temperature=2.0, num_heads=2)
    assert torch.equal(layer(query, key, value), found)


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
@pytest.mark.parametrize("similarity", ["l2", "dot", "scaled_dot", "cosine"])
@pytest.mark.parametrize("name", ["2d", "3d"])
def test_sparse_by_its_definition(name: str, similarity: str, pattern: str) -> None:
    size = SIZES[name][0]
    patch = (1, 3, 3)[-len(size) :]
    # Far from 0, where squared distances lose digits that a common center gives back.
    query, key = normals(2, 4, *size) + 3, normals(1, 4, *size, seed=1) + 3
    value = normals(2, 6, *size, seed=2)
    settings: dict[str, Any] = {"patch_size": patch, "similarity": similarity, "temperature": 2.0, "num_heads": 2}
    found = sparse_attention(query, key, value, pattern=pattern, summary=2, **settings)
    expected = dense.attention(query, key, value, in_pattern(size, pattern, 2), patch, similarity, 2.0, 2)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert torch.equal(SparseAttention(pattern=pattern, summary=2, **settings)(query, key, value), found)


LAYERS = {
    "local": (LocalAttention(window=(5, 6), patch_size=3), in_window((11, 19), (11, 19), (5, 6))),
    "strided": (SparseAttention(patch_size=3), in_pattern((11, 19), "strided", 1)),
    "fixed": (SparseAttention(patch_size=3, pattern="fixed"), in_pattern((11, 19), "fixed", 1)),
}


@pytest.mark.parametrize("causality", [False, True, "strict"])
@pytest.mark.parametrize("name", LAYERS)
def test_masks_and_causality(name: str, causality: bool | str) -> None:
    layer, allowed = LAYERS[name]
    layer.is_causal = causality
    size = SIZES["2d"][0]
    query, key, value = normals(2, 3, *size), normals(1, 3, *size, seed=1), normals(2, 2, *size, seed=2)
    key_mask, query_mask = mask(2, *size, share=0.3), mask(1, *size, share=0.7)
    key_mask[:, 4:6] = False
    key = key.masked_fill(~key_mask.any(0), torch.nan)
    number = torch.arange(11 * 19)
    if causality:
        allowed = allowed & (number[None] + (causality == "strict") <= number[:, None])
    allowed = allowed & key_mask.flatten(1)[:, None, None]
    # What patches read of masked keys is their affair: single pixels, to keep NaN away.
    layer.patch_size = 1
    found = layer(query, key, value, query_mask=query_mask, key_mask=key_mask)
    expected = dense.attention(query, key.nan_to_num().expand(2, -1, -1, -1), value, allowed, (1, 1))
    torch.testing.assert_close(found, expected.masked_fill(~query_mask[:, None], 0), **CLOSE)
    assert (found == 0).all(1).sum() > query_mask.logical_not().sum()
    layer.is_causal, layer.patch_size = False, 3


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zeros", "valid"])
@pytest.mark.parametrize("name", LAYERS)
def test_padding(name: str, padding: str) -> None:
    layer, allowed = LAYERS[name]
    layer.padding_mode = padding
    size = SIZES["2d"][0]
    query, key, value = (normals(1, 3, *size, seed=n) for n in range(3))
    found = layer(query, key, value)
    layer.padding_mode = "reflect"
    inside = torch.ones(size, dtype=torch.bool)
    if padding == "valid":
        inside = torch.zeros(size, dtype=torch.bool)
        inside[1:-1, 1:-1] = True
        padding = "zeros"
    expected = dense.attention(query, key, value, allowed & inside.flatten(), (3, 3), padding=padding)
    torch.testing.assert_close(found, expected * inside, **CLOSE)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    layer, _ = LAYERS[name]
    images = [normals(1, 1, 4, 5, seed=n).requires_grad_() for n in range(3)]
    key_mask = mask(1, 4, 5, share=0.5)
    assert torch.autograd.gradcheck(lambda q, k, v: layer(q, k, v, key_mask=key_mask), images)


def test_a_window_over_everything_is_full_attention() -> None:
    query, key, value = normals(2, 4, 12, 9), normals(2, 4, 10, 13, seed=1), normals(2, 3, 10, 13, seed=2)
    found = local_attention(query, key, value, window=100, patch_size=3)
    torch.testing.assert_close(found, full_attention(query, key, value, patch_size=3), **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_and_strides(name: str, dtype: torch.dtype) -> None:
    layer, _ = LAYERS[name]
    images = [normals(1, 4, 11, 19, seed=n).to(dtype).to(memory_format=torch.channels_last) for n in range(3)]
    found = layer(*images)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), layer(*(x.double() for x in images)), **TOLERANCE[dtype])


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (local_attention, {"window": 0}, r"window: expected an integer of at least 1"),
        (local_attention, {"similarity": "l1"}, r"similarity: got 'l1'; allowed are 'l2', 'dot'"),
        (local_attention, {"temperature": 0}, r"temperature: expected a number above 0"),
        (sparse_attention, {"pattern": "random"}, r"pattern: got 'random'; allowed are 'strided', 'fixed'"),
        (sparse_attention, {"summary": 20}, r"summary: got 20, and rows have 19 positions"),
        (sparse_attention, {"summary": 0}, r"summary: expected an integer of at least 1"),
        (sparse_attention, {"similarity": "l1"}, r"similarity: got 'l1'; allowed are"),
    ],
)
def test_errors(function: Any, settings: dict[str, Any], message: str) -> None:
    image = normals(1, 2, 11, 19)
    with pytest.raises(ValueError, match=message):
        function(image, image, image, **settings)


def test_patterns_need_rows_of_one_size() -> None:
    line, image = normals(1, 2, 19), normals(1, 2, 11, 19)
    with pytest.raises(ValueError, match="two or three spatial dimensions"):
        sparse_attention(line, line, line, patch_size=3)
    with pytest.raises(ValueError, match=r"key: expected the query's spatial size \(11, 19\), got \(11, 18\)"):
        sparse_attention(image, image[..., 1:], image[..., 1:], patch_size=3)
